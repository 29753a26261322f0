from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest
import yaml

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.layers import Layer, assignment_layer, dump, parse_layer, parse_value, put, read_layer


def test_values_and_the_lines_they_came_from() -> None:
    layer = parse_layer('seed: 1\nloss:\n  name: emu\n  regularizer: {weight: 1e-5}\n', 'a.yaml')
    assert layer.values == {'seed': 1, 'loss': {'name': 'emu', 'regularizer': {'weight': 1e-5}}}
    assert layer.place(('seed', )) == 'a.yaml:1: '
    assert layer.place(('loss', 'name')) == 'a.yaml:3: '
    assert layer.place(('loss', 'regularizer', 'weight')) == 'a.yaml:4: '
    assert layer.place(('loss', 'alpha')) == 'a.yaml:2: '  # of what contains it
    assert layer.place(('model', )) == ''


@pytest.mark.parametrize('text, value', [
    ('1e-5', 1e-5), ('1.0e-5', 1e-5), ('-3E2', -300.0), ('.5', 0.5), ('7', 7), ('true', True), ('null', None),
    ('e5', 'e5'), ('[1, 2]', [1, 2]), ('{a: 1}', {'a': 1}),
    ('0100', 100), ('-012', -12), ('+3', 3), ('0', 0), ('09', 9), ('0o17', 15), ('0x1F', 31), ('1.', 1.0),
    ('.inf', float('inf')),
    ('1:30', '1:30'), ('1:30.5', '1:30.5'), ('-1:30', '-1:30'), ('0b11', '0b11'), ('1_000', '1_000'), ('.', '.'),
    ('#', '#'), ('|', '|'), ('>', '>'), (',', ','), ('-', '-'), ('~', '~'), ('*', '*'), (' # ', '#'), ('##', '##'),
    ('||', '||'), ('>>', '>>'), ('', None), ('Null', None),
])
def test_numbers_and_text(text: str, value: object) -> None:
    read = parse_value(text, 'here')
    assert read == value and type(read) is type(value)


def test_dump_is_read_alike_by_any_reader() -> None:
    values = {'b': 1e-05, 'a': {'c': [1, 2.5], 'd': None, 'e': 1e22, 'f': 'text: with colon'}}
    assert yaml.safe_load(dump(values)) == values
    assert list(parse_layer(dump(values), 'x').values) == ['b', 'a']


@pytest.mark.parametrize('text', ['1e5', '.5e1', '0o17', '0x1F', '0100', '1:30', '1_000', '2024-01-01', 'yes', '#', '|',
                                  '~'])
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert yaml.safe_load(dump({'a': text})) == parse_layer(dump({'a': text}), 'x').values == {'a': text}


@pytest.mark.parametrize('text, message', [
    ('a: 1\nb: [1\n', r'a\.yaml:3: .*YAML'),
    ('a: 1\n\nb: 2\na: 3\n', r"a\.yaml:4: .*'a' "),
    ('x: {a: 1,\n a: 2}', r"a\.yaml:2: .*'x\.a' "),
    ('a: 1\n2: 3\n', r'a\.yaml:2: .* 2$'),
    ('- 1\n', r'a\.yaml:1: .*settings'),
    ('a: !!python/object:os.system x\n', r'a\.yaml:1: .*YAML'),
    ('a: \x00', r'a\.yaml: .*YAML'),
])
def test_bad_yaml_is_named_by_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_layer(text, 'a.yaml')


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / 'a.yaml').write_text('# nothing\n')
    assert read_layer(tmp_path / 'a.yaml').values == {}


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'a\.yaml .*No such file'):
        read_layer(tmp_path / 'a.yaml')
    (tmp_path / 'a.yaml').write_bytes(b'a: 1\nb: \xff\n')
    with pytest.raises(RecipeError, match=r'a\.yaml:2: .*0xff .*UTF-8'):
        read_layer(tmp_path / 'a.yaml')


def test_layers_merge_key_by_key() -> None:
    base = parse_layer('seed: 1\nloss: {name: emu, alpha: 0.1, beta: 0.5}', 'base.yaml')
    layer = parse_layer('loss: {beta: 0.2}', 'top.yaml').over(base, lambda path, name: [])
    assert layer.values == {'seed': 1, 'loss': {'name': 'emu', 'alpha': 0.1, 'beta': 0.2}}
    assert layer.place(('loss', 'beta')) == 'top.yaml:1: ' and layer.place(('loss', 'alpha')) == 'base.yaml:2: '
    assert base.values['loss']['beta'] == 0.5


def test_section_that_changes_its_name_begins_anew() -> None:
    base = parse_layer('loss: {name: emu, alpha: 0.1, regularizer: {weight: 1}}', 'base.yaml')
    top = parse_layer('loss: {name: bce}', 'top.yaml')
    assert top.over(base, lambda path, name: []).values == {'loss': {'name': 'bce'}}
    kept = top.over(base, lambda path, name: ['regularizer'] if (path, name) == (('loss', ), 'bce') else [])
    assert kept.values == {'loss': {'name': 'bce', 'regularizer': {'weight': 1}}}
    same = parse_layer('loss: {name: emu, beta: 1}', 'top.yaml').over(base, lambda path, name: [])
    assert same.values['loss'] == {'name': 'emu', 'alpha': 0.1, 'regularizer': {'weight': 1}, 'beta': 1}


def test_assignments() -> None:
    layer = assignment_layer(['a.b=1e-3', 'a.c = [1, 2]', 'd=x=y'])
    assert layer.values == {'a': {'b': 1e-3, 'c': [1, 2]}, 'd': 'x=y'}
    assert assignment_layer(['a.b=#', 'a.c=|']).values == {'a': {'b': '#', 'c': '|'}}
    assert layer.place(('a', 'b')) == layer.place(('a', )) == '--set a.b=1e-3: '


def test_order_of_assignments_does_not_matter() -> None:
    for given in (['loss.alpha=0.5', 'loss=emu_bce'], ['loss=emu_bce', 'loss.alpha=0.5']):
        assert assignment_layer(given).values == {'loss': {'alpha': 0.5, 'name': 'emu_bce'}}
    assert assignment_layer(['a.b=1', 'a={c: 2, b: 3}']).values == {'a': {'b': 3, 'c': 2}}
    assert assignment_layer(['a.b=1', 'a=0.3']).values == {'a': 0.3}


def test_assignment_into_a_section_given_by_name() -> None:
    layer = Layer()
    put(layer, ('loss', ), 'emu', '--loss emu')
    put(layer, ('loss', 'alpha'), 0.5, '--alpha 0.5')
    assert layer.values == {'loss': {'name': 'emu', 'alpha': 0.5}}


@pytest.mark.parametrize('assignment', ['alpha', '=1', 'a..b=1', ''])
def test_bad_assignments(assignment: str) -> None:
    with pytest.raises(RecipeError, match='KEY=VALUE'):
        assignment_layer([assignment])
    with pytest.raises(RecipeError, match=r"--set a=\[1: '\[1' "):
        assignment_layer(['a=[1'])


LAUGHS = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'{name}: &{name} [{", ".join([f"*{below}"] * 9)}]\n' for below, name in zip('abcdefghi', 'bcdefghij'))


@pytest.mark.parametrize('text, line, facts', [
    ('a: 1\nb: !!int x\n', 2, ["'x'", 'int']),
    ('b: !!timestamp 2024-13-45\n', 1, ['2024-13-45']),
    ('b: ' + 5000 * '9', 1, ['999', '4300 digits']),
    ('b: ' + 3000 * '[', 1, ['50 levels']),
    ('\n'.join(' ' * depth + 'b:' for depth in range(500)), None, ['50 levels']),
    ('a: 1\nb: &b [*b]\n', 2, ['*name']),
    ('b: &b {c: *b}\n', 1, ['*name']),
    (LAUGHS, None, ['*name', '10000 values']),
    ('b: !!python/object:os.system {}\n', 1, ['!!python/object:os.system']),
    ('b: !own 1\n', 1, ['!own']),
    ('b: !!binary aGk=\n', 1, ['binary']),
    ('b: "\\ud800"\n', 1, ['Unicode']),
    ('? [1]\n: 2\n', 1, ['list']),
])
def test_text_that_no_recipe_needs(text: str, line: Optional[int], facts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_layer(text, 'a.yaml')
    message = str(caught.value)
    assert message.startswith('a.yaml:' if line is None else f'a.yaml:{line}: ') and '\n' not in message
    assert all(fact in message for fact in facts) and len(message) < 300


def test_what_looks_like_a_date_is_text_and_aliases_are_values() -> None:
    assert parse_layer('a: 2024-13-45\nb: 2024-01-01\n', '').values == {'a': '2024-13-45', 'b': '2024-01-01'}
    assert parse_layer('a: &x {c: 1}\nb: *x\n', '').values == {'a': {'c': 1}, 'b': {'c': 1}}


def test_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / 'a.yaml').write_text('# ' + 'x' * 2**20)
    with pytest.raises(RecipeError) as caught:
        read_layer(tmp_path / 'a.yaml')
    assert all(fact in str(caught.value) for fact in ('a.yaml', '1 MiB'))
