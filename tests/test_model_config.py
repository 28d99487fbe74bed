"""Architecture numbers survive JSON, and wrong ones are refused."""

from __future__ import annotations

import json

import pytest

from humanpose3d.model_config import PRESETS, config_from_dict, model_config


@pytest.mark.parametrize(("model_type", "size"), list(PRESETS))
def test_a_configuration_survives_json(model_type: str, size: str) -> None:
    config = model_config(model_type, size, use_depth=False)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert not config.use_depth and (config.model_type, config.size) == (model_type, size)


def test_unknown_presets_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: cnn tiny, cnn small"):
        model_config("cnn", "huge")


def test_numbers_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="head_width"):
        config_from_dict({**model_config("cnn", "tiny").to_dict(), "head_width": 0})
    with pytest.raises(ValueError, match="unknown model type"):
        config_from_dict([])  # type: ignore[arg-type]
