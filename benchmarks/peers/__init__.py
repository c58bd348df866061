"""The programs that a user might run instead of ours, each behind the same three methods, each in its own process."""
