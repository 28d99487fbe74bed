"""The README tells the truth: every flag, every room and every public class it names exists, and none is left out."""

import dataclasses
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import humanpose3d
from humanpose3d import config
from tests.records import random_samples
from tests.sets import write_set

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
COMMANDS = {
    "1. preprocess.py": config.PreprocessConfig,
    "2. dataset_chunker.py": config.ChunkConfig,
    "3. dataset_split.py": config.SplitConfig,
    "4. dataset_rechunker.py": config.RechunkConfig,
    "5. main.py": config.TrainConfig,
    "6. infer.py": config.InferConfig,
    "Bodies from joints": config.FitBodyConfig,
}


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}.*?(?=^##)", README, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[0].replace("-", "_")


@pytest.mark.parametrize("title, command", COMMANDS.items())
def test_every_setting_stands_in_its_commands_section(title, command):
    words = {word.strip("_") for word in re.findall(r"\w+", section(title))}
    settings = {field.name for field in dataclasses.fields(command)}
    assert settings - {field.name for field in dataclasses.fields(config.Command)} - words == set()


def test_every_file_of_the_package_stands_in_the_tree():
    tree = section("The tree")
    names = {path.name for path in (PROJECT / "src/humanpose3d").rglob("*.py") if not path.name.startswith("__")}
    assert {name for name in names if name.replace("-", "_") not in tree} == set()


def test_the_public_names_can_be_imported():
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(humanpose3d.__path__, "humanpose3d.")]
    known = {name for module in modules for name in vars(module)}
    rows = [line.split("|")[2] for line in section("Core components").splitlines() if line.startswith("| `")]
    named = re.findall(r"`(\w+)`", " ".join(rows))
    assert len(named) > 30 and set(named) - known == set()


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert [link for link in links if not (PROJECT / link).exists()] == []


def test_the_stock_webdataset_decoder_it_shows_reads_our_chunks(tmp_path):
    write_set(tmp_path, random_samples(np.random.default_rng(0), 3), prefix="train")
    example = re.search(r"```python\n(import io.*?)```", README, re.DOTALL)
    assert example
    found: dict = {}
    exec(example[1].replace("shuffled/train/", f"{tmp_path}/"), found)
    assert found["image"].dtype == np.uint8 and found["image"].shape[-1] == 3
    assert found["depth"].dtype == np.float32 and found["depth"].ndim == 2 and 0 < found["depth"].max() < 66
    assert found["meta"]["skeleton"] == "h36m_17"
