from pathlib import Path

import pytest

from outrider.chat_template import MAX_TEMPLATE, MAX_TEXT, render_chat
from outrider.errors import ContextExceeded, InvalidModel

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>"}]


def test_renders_messages_and_marks() -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}{% if loop.last %}[{{ loop.length }}]{% endif %}"
        "{{ m['role'] ~ ': ' ~ m.content | trim }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'bot' + ':' }}{% endif %}"
    )
    assert render_chat(template, MESSAGES, bos_token="<s>", eos_token="</s>") == (
        "<s>system: Be brief.</s>\n[2]user: Hi <b></s>\nbot:"
    )


def test_what_templates_use_works() -> None:
    template = (
        "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}{%- endfor -%}"
        "{{ ns.n * 2 }} {{ messages[1:] | length }} {{ messages | map(attribute='role') | join(', ') }} "
        "{{ {'a': 'é'} | tojson }} {{ 'a-b'.replace('-', '+') | replace('b', 'c') }} {{ ns.n % 2 == 0 }} "
        "{%- macro twice(x) -%}{{ x ~ x }}{%- endmacro -%}{{ twice('z') }}"
    )
    assert render_chat(template, MESSAGES) == '4 1 system, user {"a": "é"} a+c Truezz'


def test_messages_too_long_are_not_the_template_s_fault() -> None:
    with pytest.raises(ContextExceeded, match=f"{MAX_TEXT + 1} characters"):
        render_chat("{{ messages[0].content }}", [{"role": "user", "content": "a" * (MAX_TEXT + 1)}])


def test_a_templates_own_refusal_is_told() -> None:
    with pytest.raises(InvalidModel, match="roles must alternate"):
        render_chat("{{ raise_exception('roles must alternate') }}", MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch CANARY') }}",
        "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
        "{{ raise_exception.__globals__.items() }}",
        "{{ messages.append({}) }}{{ messages[0].update({}) }}",
        "{{ (messages | attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__globals__}'.format(raise_exception) }}",
        "{% include 'CANARY' %}",
        "{{ self._TemplateReference__context.environment.loader }}{{ undefined.attribute }}",
    ],
)
def test_no_way_out_of_the_sandbox(template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidModel):
        render_chat(template, MESSAGES)
    assert list(tmp_path.iterdir()) == []
    assert [message["role"] for message in MESSAGES] == ["system", "user"]


@pytest.mark.parametrize(
    "template",
    [
        "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% set x = 'x' * 10000000 %}",
        "{% set x = [0] * 10000000 %}",
        "{{ 10 ** 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x' | center(1000000000) }}",
        "{% set x = 'x' * 4000000 %}{% set y = x ~ x %}",
        "{% set x = 'x' * 4000000 %}{% set y = x + x %}",
        "{% set x = ('x' * 4000000).replace('x', 'xx') %}",
        "{% set x = ('x' * 4000000) | replace('x', 'xx') %}",
        "{{ range(99999) | join('x' * 1000) }}",
        "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(50) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "x" * (MAX_TEMPLATE + 1),
        "{% if %}",
        "{{ 1 / 0 }}",
        "{{ messages[7].content.upper() }}",
        "{{ 'a' + 1 }}",
        "{{ nothing() }}",
    ],
)
def test_bombs_and_mistakes_end_as_one_error(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.chat_template.MAX_SECONDS", 0.05)
    with pytest.raises(InvalidModel, match="chat template"):
        render_chat(template, MESSAGES)
