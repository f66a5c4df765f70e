"""The committed fits are what a refit gives (those that take no time; bases of the profiles may have moved since)."""

import tomllib

import pytest

from simulator.replay import refit_clusters, refit_kernels
from simulator.replay.refit import REFITS
from simulator.replay.source import DATA


def efficiencies(path):
    """Efficiency of every kernel and pass of a fitted profile."""
    kernels = tomllib.loads(path.read_text())["kernels"]
    passes = [(name, way, kernels[name][way]) for name in kernels for way in ("forward", "backward")]
    return {(name, way): terms["efficiency"]["128"] for name, way, terms in passes}


@pytest.mark.parametrize("name", ["burst-profile", "longca-block-sparse"])
def test_refit_gives_the_committed_fit(name, tmp_path, monkeypatch):
    for module in (refit_clusters, refit_kernels):
        monkeypatch.setattr(module, "DATA", tmp_path)
    REFITS[name]()
    assert (tmp_path / f"{name}.fit.toml").read_text() == (DATA / f"{name}.fit.toml").read_text()
    made, committed = (efficiencies(folder / f"{name}.hardware.toml") for folder in (tmp_path, DATA))
    assert made == pytest.approx(committed, rel=0.03)


def test_every_committed_fit_can_be_made_anew():
    fits = {path.name.removesuffix(".fit.toml") for path in DATA.glob("*.fit.toml")}
    assert fits <= set(REFITS)


def test_what_was_fitted_to_published_rows_stays_when_we_measure_a_gpu_again():
    for path in DATA.glob("*.hardware.toml"):
        assert tomllib.loads(path.read_text())["calibrated"] is False, path.name
