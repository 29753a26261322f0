from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import pyg_emu
from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.layers import assignment_layer, dump
from pyg_emu.experiments.recipe import Recipe, differences, load_recipe, packaged_recipes, packaged_text

FOLDER = Path(pyg_emu.__file__).parent / 'experiments' / 'recipes'
NAMES = sorted(path.stem for path in FOLDER.glob('*.yaml'))


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def assigned(*assignments: str, source: Any = None) -> Recipe:
    return load_recipe({'dataset': 'UMLS'} if source is None else source, [assignment_layer(assignments)])


# Packaged recipes ############################################################


DATASETS = {'umls': 'UMLS', 'nations': 'Nations', 'fb15k237': 'FB15k-237', 'wn18rr': 'WN18RR', 'fb237-v1': 'fb237_v1',
            'wn18rr-v1': 'WN18RR_v1'}


@pytest.mark.parametrize('name', NAMES)
def test_packaged_recipe(name: str) -> None:
    recipe = load_recipe(name)
    model, _, rest = name.partition('-')
    assert recipe.model['name'].lower() == model
    if model == 'nbfnet':
        dataset, kind = rest.removesuffix('-bce'), 'bce' if rest.endswith('-bce') else 'emu'
        assert recipe.loss['name'] == f'nbfnet_{kind}'
        assert recipe.inference == (f'{DATASETS[dataset]}_ind' if dataset.endswith('-v1') else None)
    else:
        dataset, _, kind = rest.partition('-')
        adversarial = kind in ('dans', 'kbgan')
        assert recipe.loss['name'] == {'uniform': 'cross_entropy', 'emu': 'emu', 'demix': 'demix'}.get(kind,
                                                                                                       'cross_entropy')
        assert recipe.negatives['sampler'] is None or recipe.negatives['sampler']['name'] == (
            kind if adversarial else 'uniform')
        assert (recipe.negatives['mutation'] or {}).get('name') == ('demix' if kind == 'demix' else None)
    assert recipe.dataset == DATASETS[dataset]
    if recipe.negatives['mutation'] is None:
        assert (recipe.negatives['mutation_rate'] > 0.0) == (kind == 'emu')
    else:  # settings of masks are not inherited
        assert recipe.negatives['mutation_rate'] == load_recipe({'dataset': 'UMLS'}).negatives['mutation_rate']
    if kind == 'emu':
        # The paper draws a mask for every negative: whether a recipe does, it says.
        assert yaml.safe_load(packaged_text(name))['negatives']['shared'] is recipe.negatives['shared']
        assert recipe.negatives['shared'] == (model != 'nbfnet')
        assert recipe.negatives['mask'] == ('exact' if model == 'nbfnet' else 'bernoulli')
    assert packaged_recipes()[name] == recipe.description != ''
    assert yaml.safe_load(packaged_text(name))['description'] == recipe.description


@pytest.mark.parametrize('dataset', DATASETS)
def test_published_settings_of_nbfnet(dataset: str) -> None:
    emu, bce = load_recipe(f'nbfnet-{dataset}'), load_recipe(f'nbfnet-{dataset}-bce')
    # The pair differs in the loss and the mutation alone.
    assert {line.partition(':')[0] for line in differences(emu, bce)} == {'loss.name', 'negatives.mutation_rate'}
    wordnet = dataset.startswith('wn18rr')
    for recipe in (emu, bce):
        model = {key: recipe.model[key] for key in ('hidden_channels', 'num_layers', 'message', 'aggregate')}
        assert model == {'hidden_channels': 32, 'num_layers': 6, 'message': 'product', 'aggregate': 'pna'}
        assert recipe.model['dependent'] == recipe.model['remove_one_hop'] == (not wordnet)
        assert recipe.loss['adversarial_temperature'] == (1.0 if wordnet else 0.5)
        assert recipe.batch_size == (16 if dataset == 'wn18rr' else 64) and recipe.corrupt == 'both'
        assert recipe.negatives['num_negatives'] == 32 and recipe.negatives['sampler']['filtered']
        assert recipe.optimizer == {'name': 'adam', 'lr': 5e-3}
        assert recipe.inference == (f'{recipe.dataset}_ind' if dataset.endswith('-v1') else None)
    assert emu.negatives['mutation_rate'] == 0.94 and (emu.loss['alpha'], emu.loss['beta']) == (1.0, 0.25)


def test_what_the_measurements_were_made_with() -> None:
    uniform, emu = load_recipe('distmult-fb15k237-uniform'), load_recipe('distmult-fb15k237-emu')
    for recipe in (uniform, emu):
        assert recipe.model['hidden_channels'] == 100 and recipe.batch_size == 1000 and recipe.corrupt == 'alternate'
        assert recipe.negatives['num_negatives'] == 256 and recipe.optimizer == {'name': 'adagrad', 'lr': 0.1}
    assert uniform.loss['regularizer'] == {'name': 'l3', 'weight': 1e-5}
    assert emu.loss == {'name': 'emu', 'alpha': 0.11, 'beta': 0.53, 'divide_by_negatives': True, 'regularizer': None,
                        'mutate_vectors': False}
    assert emu.negatives['mutation_rate'] == 0.61 and emu.negatives['shared'] and not emu.negatives['tied']


# Reading #####################################################################


def test_defaults_and_round_trip(tmp_path: Path) -> None:
    recipe = load_recipe({'dataset': 'Nations'})
    assert (recipe.model['name'], recipe.model['hidden_channels'], recipe.loss['name']) == ('DistMult', 100, 'emu')
    assert recipe == Recipe('Nations')
    path = write(tmp_path, 'recipe.yaml', recipe.to_yaml())
    again = load_recipe(path)
    assert again == recipe and again.hash() == recipe.hash() and again.to_yaml() == recipe.to_yaml()


def test_metric_that_decides() -> None:
    assert assigned('metric=macro.mrr').metric == 'macro.mrr' and assigned('metric=tail.hits@10').hash() == (
        assigned().hash())
    assert assigned('metric=hits@5', 'validation={ks: [5]}').metric == 'hits@5'
    assert assigned('metric=1-N.head.mrr').metric == '1-N.head.mrr'
    for wrong, told in (('hits@5', r'metric: .*hits@1.*hits@3.*hits@10.*macro.*hits@5'), ('macro.mmr', 'macro.mrr'),
                        ('relation.mrr', 'metric: .*relation.mrr')):
        with pytest.raises(RecipeError, match=told):
            assigned(f'metric={wrong}')
    assert assigned('metric=relation.mrr', 'validation={sides: [tail, relation]}').metric == 'relation.mrr'
    assert assigned('metric=tail.mrr', 'validation={sides: tail}').metric == 'tail.mrr'


def test_defaults_of_a_model_that_reads_a_graph() -> None:
    for recipe in (load_recipe({'dataset': 'UMLS', 'model': 'nbfnet'}), assigned('model.name=NBFNet')):
        assert recipe.model['hidden_channels'] == 32 and recipe.loss['name'] == 'nbfnet_emu'
        assert recipe.negatives['sampler'] == {'name': 'uniform', 'filtered': True, 'split': 'train'}
        assert (recipe.negatives['num_negatives'], recipe.negatives['mutation_rate']) == (32, 0.94)
        assert (recipe.batch_size, recipe.corrupt, recipe.optimizer) == (64, 'both', {'name': 'adam', 'lr': 5e-3})
    recipe = assigned('loss.alpha=0.5', 'batch_size=7', 'model.num_layers=2', source={'dataset': 'UMLS',
                                                                                       'model': 'NBFNet'})
    assert (recipe.loss['name'], recipe.loss['alpha'], recipe.batch_size) == ('nbfnet_emu', 0.5, 7)
    assert (recipe.model['hidden_channels'], recipe.model['num_layers']) == (32, 2)


def test_base_beside_the_file_and_packaged(tmp_path: Path) -> None:
    write(tmp_path, 'low.yaml', 'base: distmult-umls-emu\ndescription: low\nbatch_size: 7\nloss: {alpha: 0.5}\n')
    high = write(tmp_path, 'high.yaml', 'base: low.yaml\nseed: 3\nmodel: complex\nloss: {beta: 0.25}\n')
    recipe = load_recipe(high)
    assert (recipe.batch_size, recipe.seed, recipe.num_steps, recipe.description) == (7, 3, 1000, '')
    assert recipe.loss['alpha'] == 0.5 and recipe.loss['beta'] == 0.25
    assert recipe.model['name'] == 'ComplEx' and recipe.model['hidden_channels'] == 100


def test_overrides() -> None:
    recipe = assigned('loss.alpha=0.2', 'optimizer=adam', 'num_steps=5', source='distmult-umls-emu')
    assert recipe.loss['alpha'] == 0.2 and recipe.num_steps == 5
    assert recipe.optimizer == {'name': 'adam'}, 'the rate of Adagrad is none for Adam'
    recipe = assigned('loss=margin', 'model=transe', source='distmult-fb15k237-uniform')
    assert recipe.loss == {'name': 'margin', 'margin': 1.0, 'mutate': False, 'alpha': 0.0,
                           'adversarial_temperature': None, 'regularizer': {'name': 'l3', 'weight': 1e-5}}
    assert recipe.model['hidden_channels'] == 100


def test_same_name_in_another_spelling_keeps_its_settings() -> None:
    recipe = assigned('model.name=dist-mult', source={'dataset': 'UMLS', 'model': {'name': 'DistMult', 'margin': 3.0}})
    assert recipe.model['margin'] == 3.0


@pytest.mark.parametrize('base, override, expected', [
    ('negatives: {sampler: nscaching}', 'negatives.sampler.filtered=true',
     'negatives: {sampler: {name: nscaching, filtered: true}}'),
    ('negatives: {sampler: {name: NSCaching, cache_size: 7}}', 'negatives.sampler=nscaching',
     'negatives: {sampler: {name: nscaching, cache_size: 7}}'),
    ('negatives: {sampler: {name: nscaching, cache_size: 7}}', 'negatives.sampler=uniform',
     'negatives: {sampler: uniform}'),
    ('loss: {regularizer: n3}', 'loss.regularizer.weight=1e-3', 'loss: {regularizer: {name: n3, weight: 1e-3}}'),
    ('loss: {regularizer: {name: N3, weight: 2.0}}', 'loss=bce',
     'loss: {name: bce, regularizer: {name: n3, weight: 2.0}}'),
    ('loss: {regularizer: {name: N3, weight: 2.0}}', 'loss.regularizer={name: n-3, weight: 3.0}',
     'loss: {regularizer: {name: n3, weight: 3.0}}'),
    ('loss: {regularizer: n3}', 'loss.regularizer=null', 'loss: {regularizer: null}'),
    ('negatives: {mutation: Learned}', 'negatives.mutation.width=4',
     'negatives: {mutation: {name: learned, width: 4}}'),
    ('negatives: {mutation_rate: {start: 0.0, end: 0.5, steps: 4}}', 'negatives.mutation_rate=0.5',
     'negatives: {mutation_rate: 0.5}'),
    ('negatives: {mutation_rate: 0.5}', 'negatives.mutation_rate={name: Linear, start: 0.0, end: 0.5, steps: 4}',
     'negatives: {mutation_rate: {start: 0.0, end: 0.5, steps: 4}}'),
])
def test_section_within_a_section_merges_by_its_name(tmp_path: Path, base: str, override: str, expected: str) -> None:
    low = write(tmp_path, 'low.yaml', f'dataset: UMLS\n{base}\n')
    wanted = load_recipe(write(tmp_path, 'expected.yaml', f'dataset: UMLS\n{expected}\n'))
    assert assigned(override, source=low) == wanted
    high = write(tmp_path, 'high.yaml', f'base: low.yaml\n{dump(assignment_layer([override]).values)}')
    assert load_recipe(high) == wanted


def test_error_in_a_section_that_a_name_within_a_section_stands_for(tmp_path: Path) -> None:
    low = write(tmp_path, 'low.yaml', 'dataset: UMLS\nnegatives:\n  sampler: nscachin\n')
    with pytest.raises(RecipeError, match=r"low\.yaml:3: .*'nscachin'.*'nscaching'"):
        assigned('negatives.sampler.filtered=true', source=low)


@pytest.mark.parametrize('section, below', [
    ('schedule', 'cosine'), ('validation', '{max_triples: 3}'), ('evaluation', '{ks: [5]}'), ('optimizer', 'adam'),
    ('loss', '{name: bce, regularizer: {weight: 2.0}}'), ('negatives', '{num_negatives: 7}'),
    ('model', '{hidden_channels: 7}'),
])
def test_null_drops_the_section_below(tmp_path: Path, section: str, below: str) -> None:
    low = write(tmp_path, 'low.yaml', f'dataset: UMLS\n{section}: {below}\n')
    assert load_recipe(low) != Recipe('UMLS')
    assert assigned(f'{section}=null', source=low) == Recipe('UMLS')
    assert load_recipe(write(tmp_path, 'high.yaml', f'base: low.yaml\n{section}:\n')) == Recipe('UMLS')
    assert load_recipe({'dataset': 'UMLS', section: None}) == Recipe('UMLS')
    # What is laid over the null begins at the default.
    write(tmp_path, 'middle.yaml', f'base: low.yaml\n{section}: null\n')
    top = write(tmp_path, 'top.yaml', f'base: middle.yaml\n{section}: {{}}\n')
    assert load_recipe(top) == Recipe('UMLS')


def test_null_gives_way_to_the_default_of_the_model() -> None:
    recipe = assigned('optimizer=null', source={'dataset': 'UMLS', 'model': 'NBFNet', 'optimizer': 'sgd'})
    assert recipe.optimizer == {'name': 'adam', 'lr': 5e-3}


def test_inputs_are_left_alone() -> None:
    source = {'dataset': 'UMLS', 'base': 'distmult-umls-emu', 'loss': 'emu'}
    load_recipe(source)
    assert source == {'dataset': 'UMLS', 'base': 'distmult-umls-emu', 'loss': 'emu'}


# What may continue what ######################################################


@pytest.mark.parametrize('assignment', ['graph=true', 'num_steps=99', 'evaluate_every=3', 'patience=4', 'max_seconds=9',
                                        'description=x', 'validation.max_triples=9', 'evaluation.tie=optimistic',
                                        'loss.alpha=0.11'])
def test_hash_without_what_does_not_matter(assignment: str) -> None:
    assert assigned(assignment).hash() == assigned().hash()


@pytest.mark.parametrize('assignment', ['seed=1', 'loss.alpha=0.2', 'negatives.sampler.filtered=true', 'batch_size=9',
                                        'optimizer.lr=0.2', 'model.hidden_channels=9', 'max_grad_norm=1',
                                        'corrupt=tail', 'schedule=linear', 'dataset=Nations'])
def test_hash_with_what_does(assignment: str) -> None:
    assert assigned(assignment).hash() != assigned().hash()


def test_steps_matter_to_a_schedule() -> None:
    assert assigned('schedule=linear', 'num_steps=9').hash() != assigned('schedule=linear').hash()


def test_where_a_model_is_used_in_the_end_does_not_matter_to_its_training() -> None:
    graph = {'dataset': 'UMLS', 'model': 'NBFNet'}
    assert load_recipe({**graph, 'inference': 'Nations'}).hash() == load_recipe(graph).hash()


def test_differences() -> None:
    found = differences(assigned('loss.alpha=0.2', 'seed=1'), assigned())
    assert found == ['loss.alpha: 0.2, not 0.11', 'seed: 1, not 0']
    assert differences(assigned('loss=margin', 'loss.margin=3'), assigned()) == ['loss.name: margin, not emu',
                                                                                 'loss.margin: 3.0, not nothing']


# Bad input ###################################################################


@pytest.mark.parametrize('text, message', [
    ('negatives:\n  num_negatives: 4\n  mutation_rat: 0.5\n',
     r"a\.yaml:4: .*'negatives\.mutation_rat'.*'negatives\.mutation_rate'"),
    ('batchsize: 3\n', r"a\.yaml:2: .*'batchsize'.*'batch_size'"),
    ('qqq: 3\n', r"a\.yaml:2: .*'qqq'.* dataset, description, model"),
    ('lr: 0.1\n', r"a\.yaml:2: .*'lr'.*'optimizer\.lr'"),
    ('mutation_rate: 0.1\n', r"a\.yaml:2: .*'mutation_rate'.*'negatives\.mutation_rate'"),
    ('seed: x\n', r"a\.yaml:2: seed: .* 'x'$"),
    ('seed: -1\n', r'a\.yaml:2: seed: .*\[0, 2\^63\).* -1$'),
    ('num_steps: 0\n', r'a\.yaml:2: num_steps: .* 1.* 0$'),
    ('patience: -1\n', r'a\.yaml:2: patience: .* 1.* -1$'),
    ('max_seconds: 0\n', r'a\.yaml:2: max_seconds: .* 0'),
    ('max_grad_norm: -1\n', r'a\.yaml:2: max_grad_norm: .* -1$'),
    ('max_grad_norm: 0\n', r'a\.yaml:2: max_grad_norm: .* 0$'),
    ('max_grad_norm: .nan\n', r'a\.yaml:2: max_grad_norm: .* nan$'),
    ('max_grad_norm: .inf\n', r'a\.yaml:2: max_grad_norm: .* inf$'),
    ('corrupt: tails\n', r"a\.yaml:2: corrupt: .*'alternate', .*'bernoulli'.* 'tails'$"),
    ('model: DistMul\n', r"a\.yaml:2: .*'DistMul'.*'DistMult'"),
    ('loss:\n  name: emu\n  alpha: [1]\n', r'a\.yaml:4: loss\.alpha: .*number.* \[1\]$'),
    ('loss:\n  name: emu\n  alpha: -1\n', r'a\.yaml:4: loss: alpha: .* 0.* -1'),
    ('negatives:\n  num_negatives: 4\n  mutation_rate: 1.5\n', r'a\.yaml:4: negatives: mutation_rate: .* 1\.5$'),
    ('model:\n  hidden_channels: 0\n', r'a\.yaml:3: model: hidden_channels: .* 1.* 0$'),
    ('loss:\n  regularizer:\n    weight: -1.0\n', r'a\.yaml:4: regularizer: weight: .* 0.* -1\.0$'),
    ('optimizer:\n  lr: -1.0\n', r'a\.yaml:3: optimizer\.lr: .* 0.* -1\.0$'),
    ('optimizer: {eps: 1.0e-5}\nschedule: switch\n', r'a\.yaml:3: optimizer: SwitchOptimizer.* eps=1e-05 '),
    ('evaluation: {split: test}\n', r"a\.yaml:2: .*'evaluation\.split'"),
    ('evaluation:\n  by: relation\n  max_triples: -1\n', r'a\.yaml:4: evaluation: max_triples: .* 1.* -1$'),
    ('evaluation: {filter_splits: foo}\n', r"a\.yaml:2: evaluation: filter_splits: .*'valid'.*'foo'"),
    ('evaluation:\n  num_negatives: -4\n', r'a\.yaml:3: evaluation: num_negatives: .* -4$'),
    ('evaluation:\n  sides: [tail, tail]\n', r"a\.yaml:3: evaluation: sides: .*\['tail', 'tail'\]"),
    ('evaluation:\n  sides: [relation]\n  candidates: [usa]\n', r'a\.yaml:4: evaluation: candidates: .*relation'),
    ('evaluation: {ks: [0]}\n', r'a\.yaml:2: evaluation: ks: .*0'),
    ('evaluation: {seed: -1}\n', r'a\.yaml:2: evaluation: seed: .* -1$'),
    ('validation:\n  batch_size: 0\n', r'a\.yaml:3: validation: batch_size: .* 0$'),
    ('validation: {num_negatives: -4}\n', r'a\.yaml:2: validation: num_negatives: .* -4$'),
    ('validation: {filter_splits: [train, foo]}\n', r"a\.yaml:2: validation: filter_splits: .*'foo'"),
    ('model: {sparse: true}\noptimizer: adam\n', r'a\.yaml:3: optimizer\.name: adam .*row-sparse'),
    ('optimizer: sparse_adam\n', r'a\.yaml:2: optimizer\.name: .*DistMult .*model\.sparse'),
    ('model: NBFNet\noptimizer: sparse_adam\n', r'a\.yaml:3: optimizer\.name: .*NBFNet .* adam'),
    ('model: NBFNet\nloss: emu\n', r'a\.yaml:3: loss\.name: emu .*NBFNet.* nbfnet_bce, nbfnet_emu'),
    ('loss: nbfnet_bce\n', r'a\.yaml:2: loss\.name: nbfnet_bce .*DistMult'),
    ('model:\n  name: NBFNet\n  sparse: true\n', r"a\.yaml:4: .*'model\.sparse' .*NBFNet"),
    ('model: NBFNet\nloss: {regularizer: {weight: 1.0}}\n', r"a\.yaml:3: .*'loss\.regularizer' .*nbfnet_emu"),
    ('model: NBFNet\nnegatives:\n  sampler: nscaching\n', r'a\.yaml:4: negatives\.sampler: nscaching '),
    ('model: {name: NBFNet, num_layers: 0}\n', r'a\.yaml:2: model: num_layers: .* 1.* 0$'),
    ('inference: Nations\n', r'a\.yaml:2: inference: DistMult '),
    ('model: NBFNet\ninference: {root: x}\n', r"a\.yaml:3: inference: .*'source'"),
    ('model: NBFNet\ninference: 3\n', r'a\.yaml:3: inference: .* 3$'),
    ('base: 3\n', r'a\.yaml:2: base: .* 3$'),
    ('base: distmult-uml-emu\n', r"a\.yaml:2: .*'distmult-uml-emu'.*'distmult-umls-emu'"),
    ('base: a.yaml\n', r'a\.yaml .*itself'),
])
def test_bad_recipe_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, 'a.yaml', 'dataset: UMLS\n' + text))


def test_checking_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    for name in ('DistMult', 'ComplEx', 'TransE', 'RotatE', 'HAKE', 'NBFNet'):
        load_recipe({'dataset': 'UMLS', 'model': name, 'negatives': {'mutation': {'name': 'learned', 'width': 4}}})
    assert torch.equal(before, torch.get_rng_state())


def test_error_in_a_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path, 'low.yaml', 'dataset: UMLS\n\nlos: emu\n')
    with pytest.raises(RecipeError, match=r"low\.yaml:3: .*'los'.*'loss'"):
        load_recipe(write(tmp_path, 'high.yaml', 'base: low.yaml\n'))


@pytest.mark.parametrize('text', ['seed: 1\n', 'dataset: null\n', ''])
def test_missing_dataset(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match='dataset'):
        load_recipe(write(tmp_path, 'a.yaml', text))


@pytest.mark.parametrize('value', ['5', '[a]', '{source: 3}'])
def test_bad_dataset(value: str) -> None:
    with pytest.raises(RecipeError, match=r'--set dataset=.*: dataset: '):
        assigned(f'dataset={value}')
    with pytest.raises(RecipeError, match=r"--set dataset=.*: dataset: .*'source'"):
        assigned('dataset={root: x}', source={})


def test_options_of_a_dataset_go_beside_its_name() -> None:
    recipe = assigned('dataset.header=true', 'dataset.delimiter=;', source={'dataset': 'path/to/folder'})
    assert recipe.dataset == {'source': 'path/to/folder', 'header': True, 'delimiter': ';'}
    assert assigned('dataset.delimiter= ').dataset == {'source': 'UMLS', 'delimiter': ' '}
    recipe = load_recipe({'dataset': {'source': 'a', 'header': True}}, [assignment_layer(['dataset=b'])])
    assert recipe.dataset == 'b'


def test_error_in_an_override_names_the_flag() -> None:
    with pytest.raises(RecipeError, match=r"^--set loss\.alpa=1: .*'loss\.alpa' .*emu"):
        assigned('loss.alpa=1', source='distmult-umls-emu')
    with pytest.raises(RecipeError, match=r"^--set optimizer=adan: .*optimizer 'adan'"):
        assigned('optimizer=adan', source='distmult-umls-emu')


def test_unknown_recipe() -> None:
    with pytest.raises(RecipeError, match=r"'distmult-umls'.*'distmult-umls-emu'"):
        load_recipe('distmult-umls')


def test_masks_are_not_inherited_beside_another_mutation(tmp_path: Path) -> None:
    (tmp_path / 'emu.yaml').write_text('dataset: UMLS\nnegatives: {num_negatives: 8, mutation_rate: 0.61, '
                                       'mask: exact, shared: false}\n')
    (tmp_path / 'mixup.yaml').write_text('base: emu.yaml\nnegatives: {mutation: mixup}\n')
    recipe = load_recipe(tmp_path / 'mixup.yaml')
    plain = load_recipe({'dataset': 'UMLS', 'negatives': {'num_negatives': 8, 'mutation': 'mixup'}})
    assert recipe.negatives == plain.negatives and recipe.hash() == plain.hash()
    assert recipe.negatives['num_negatives'] == 8 and recipe.negatives['mutation']['name'] == 'mixup'
    assert load_recipe(tmp_path / 'emu.yaml', [assignment_layer(['negatives.mutation=mixup'])]) == recipe
    assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    emu = load_recipe(tmp_path / 'emu.yaml', [assignment_layer(['negatives.mutation=null'])])
    assert emu == load_recipe(tmp_path / 'emu.yaml') and emu.negatives['mask'] == 'exact'


@pytest.mark.parametrize('name, assignments, place', [
    ('emu.yaml', [['negatives.mutation=mixup'], ['negatives.mutation_rate=0.5']], '--set negatives.mutation_rate=0.5'),
    ('emu.yaml', [['negatives.mutation_rate=0.5'], ['negatives.mutation=mixup']], '--set negatives.mutation_rate=0.5'),
    ('emu.yaml', [['negatives.mutation_rate=0.5', 'negatives.mutation=mixup']], '--set negatives.mutation_rate=0.5'),
    ('mixup.yaml', [['negatives.mutation_rate=0.5']], '--set negatives.mutation_rate=0.5'),
    ('both.yaml', [], 'both.yaml:4'),
])
def test_settings_of_masks_beside_another_mutation(tmp_path: Path, name: str, assignments: list[list[str]],
                                                   place: str) -> None:
    (tmp_path / 'emu.yaml').write_text('dataset: UMLS\nnegatives: {mutation_rate: 0.61, mask: exact}\n')
    (tmp_path / 'mixup.yaml').write_text('base: emu.yaml\nnegatives: {mutation: mixup}\n')
    (tmp_path / 'both.yaml').write_text('dataset: UMLS\nnegatives:\n  mutation: mixup\n  mutation_rate: 0.61\n')
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / name, [assignment_layer(layer) for layer in assignments])
    assert place in str(caught.value) and 'mutation_rate: ' in str(caught.value) and 'Mixup' in str(caught.value)
