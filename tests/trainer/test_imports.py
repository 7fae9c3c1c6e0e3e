import subprocess
import sys
import textwrap

import rpo_data.trainer

HIDE = """
import sys
class Hidden:
    '''Finds everything but the packages named here, as if they were not installed.'''
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split('.')[0] in HIDDEN else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path = [Hidden(finder) for finder in sys.meta_path]
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_works_without_the_packages_that_build_a_dataset():
    code = f"HIDDEN = ('faiss', 'polars', 'pandera', 'sentence_transformers', 'numba', 'scipy')\n{HIDE}"
    code += "from importlib.util import find_spec\nassert all(find_spec(name) is None for name in HIDDEN)\n"
    code += "from rpo_data.trainer import RPOConfig, RPOTrainer, rpo_loss\nimport rpo_data.pipelines.train\n"
    assert run(code + "print(RPOTrainer.__name__)") == "RPOTrainer"


def test_loads_none_of_them_where_they_are_installed():
    code = "import sys\nfrom rpo_data.trainer import RPOConfig, RPOTrainer, rpo_loss\n"
    code += "print([n for n in ('faiss', 'polars', 'pandera', 'sentence_transformers', 'numba') if n in sys.modules])"
    assert run(code) == "[]"


def test_a_missing_extra_names_what_to_install():
    code = f"HIDDEN = ('torch', 'accelerate')\n{HIDE}"
    code += "from rpo_data.errors import MissingExtra\n"
    code += "try:\n    from rpo_data.trainer import RPOTrainer\nexcept MissingExtra as error:\n    print(error)"
    assert run(code) == "training needs accelerate, torch: pip install 'rpo-data[train]'"


def test_public_names_are_sorted_and_there():
    names = rpo_data.trainer.__all__
    assert names == sorted(names)
    assert all(getattr(rpo_data.trainer, name) for name in names)
    assert set(names) <= set(dir(rpo_data.trainer))
