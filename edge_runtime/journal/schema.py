"""The journal's tables, and what may never happen in them, as constraints and triggers: they hold whoever writes.

Verified tokens are neither changed nor removed, but with their whole generation; positions stand in order, each once;
provisional tokens stand right of verified ones. Checksums tell of bytes that changed on the disk (`values.py`).
"""

__all__ = ["APPLICATION_ID", "MIGRATIONS"]

APPLICATION_ID = 0x4F757472  # "Outr"; says whose file it is

TABLES = (
    """
    CREATE TABLE generation (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation TEXT NOT NULL,
        started_s REAL NOT NULL,
        start INTEGER NOT NULL CHECK (start >= 1),
        request TEXT NOT NULL,
        target TEXT NOT NULL,
        finish TEXT,
        checksum INTEGER NOT NULL
    )""",
    """
    CREATE TABLE token (
        generation INTEGER NOT NULL REFERENCES generation ON DELETE CASCADE,
        position INTEGER NOT NULL,
        token_id INTEGER NOT NULL CHECK (token_id BETWEEN 0 AND 4294967295),
        is_verified INTEGER NOT NULL CHECK (is_verified IN (0, 1)),
        checksum INTEGER NOT NULL,
        PRIMARY KEY (generation, position)
    ) WITHOUT ROWID""",
    "CREATE INDEX generation_conversation ON generation (conversation)",
    "CREATE INDEX token_provisional ON token (generation, position) WHERE is_verified = 0",
    """
    CREATE TRIGGER token_appended BEFORE INSERT ON token BEGIN
        SELECT RAISE(ABORT, 'the generation is not in the journal')
        WHERE NOT EXISTS (SELECT 1 FROM generation WHERE id = NEW.generation);
        SELECT RAISE(ABORT, 'a generation that is finished takes no tokens')
        WHERE (SELECT finish FROM generation WHERE id = NEW.generation) IS NOT NULL;
        SELECT RAISE(ABORT, 'positions are appended in order, each once')
        WHERE NEW.position IS NOT ifnull(
            (SELECT max(position) + 1 FROM token WHERE generation = NEW.generation),
            (SELECT start FROM generation WHERE id = NEW.generation));
        SELECT RAISE(ABORT, 'a verified token follows verified tokens only')
        WHERE NEW.is_verified AND EXISTS (
            SELECT 1 FROM token WHERE generation = NEW.generation AND position = NEW.position - 1 AND is_verified = 0);
    END""",
    """
    CREATE TRIGGER token_confirmed BEFORE UPDATE ON token BEGIN
        SELECT RAISE(ABORT, 'a verified token never changes') WHERE OLD.is_verified;
        SELECT RAISE(ABORT, 'a token only turns from provisional to verified')
        WHERE NOT NEW.is_verified OR (NEW.generation, NEW.position, NEW.token_id)
            IS NOT (OLD.generation, OLD.position, OLD.token_id);
        SELECT RAISE(ABORT, 'a verified token follows verified tokens only')
        WHERE EXISTS (
            SELECT 1 FROM token WHERE generation = OLD.generation AND position = OLD.position - 1 AND is_verified = 0);
    END""",
    """
    CREATE TRIGGER token_retracted BEFORE DELETE ON token
    WHEN EXISTS (SELECT 1 FROM generation WHERE id = OLD.generation) BEGIN
        SELECT RAISE(ABORT, 'a verified token is never retracted') WHERE OLD.is_verified;
        SELECT RAISE(ABORT, 'tokens are retracted from the end')
        WHERE EXISTS (SELECT 1 FROM token WHERE generation = OLD.generation AND position > OLD.position);
    END""",
    """
    CREATE TRIGGER generation_kept BEFORE UPDATE ON generation BEGIN
        SELECT RAISE(ABORT, 'what was asked never changes')
        WHERE (NEW.id, NEW.conversation, NEW.started_s, NEW.start, NEW.request)
            IS NOT (OLD.id, OLD.conversation, OLD.started_s, OLD.start, OLD.request);
        SELECT RAISE(ABORT, 'one target alone verifies a generation')
        WHERE OLD.target <> '' AND NEW.target <> OLD.target;
        SELECT RAISE(ABORT, 'a generation finishes once')
        WHERE NEW.finish IS NOT OLD.finish AND OLD.finish IS NOT NULL AND (NEW.finish IS NOT NULL OR NOT EXISTS (
            SELECT 1 FROM token WHERE generation = OLD.id AND is_verified = 0));
    END""",
)
# How long an answer was when somebody stopped it: it gets no longer, whatever is retracted. No row: nobody did.
STOPS = (
    """
    CREATE TABLE stop (
        generation INTEGER PRIMARY KEY REFERENCES generation ON DELETE CASCADE,
        num_tokens INTEGER NOT NULL CHECK (num_tokens >= 1),
        checksum INTEGER NOT NULL
    )""",
)
# What brings a file from version n to n + 1. A version that was released never changes; the next one is appended.
MIGRATIONS: tuple[tuple[str, ...], ...] = (TABLES, STOPS)
