"""A server held to the OpenAPI page that it gives of itself: schemathesis makes requests, right and wrong ones, and
every answer is as described there. Its libraries are imported by whoever asks."""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings

__all__ = ["MODES", "statuses_of"]

MODES = ("positive", "negative")
HANG_S = 30.0


def statuses_of(
    schema: dict[str, Any], base_url: str, mode: str, num_asked: int, *, refuses_wrong: bool, not_built: str = ""
) -> Counter[int]:
    """How often each status came. `refuses_wrong`: whatever the page does not allow; `not_built`: what answers 501."""
    import requests
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    described = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        *([checks.negative_data_rejection] if refuses_wrong else []),
    ]
    statuses: Counter[int] = Counter()
    session = requests.Session()
    session.trust_env = False
    drawn = schemathesis.openapi.from_dict(schema).as_strategy(schemathesis.GenerationMode(mode))

    @settings(max_examples=num_asked, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=drawn)
    def run(case: schemathesis.Case) -> None:
        if mode == "positive":
            case.body = _without_whole_floats(case.body)
        response = case.call(base_url=base_url, session=session, timeout=HANG_S)
        statuses[response.status_code] += 1
        never = [] if case.path == not_built else [not_a_server_error]
        case.validate_response(response, checks=[*described, *never])

    with session:
        run()
    return statuses


def _without_whole_floats(value: Any) -> Any:
    """To JSON Schema 3.0 is an integer; to a server a float is none."""
    if isinstance(value, dict):
        return {key: _without_whole_floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_whole_floats(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
