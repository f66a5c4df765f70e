"""Profiles from files: bases, sources, and one message for every fault."""

import pytest

from cost_models.hardware import load_hardware
from cost_models.hardware.load import load_published
from traces.errors import InputError

SOURCE = '[[source]]\nterms = ["sm_count"]\nbasis = "calibrated"\nreference = "mine"\nrelative_error = 0.02\n'


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def test_base_with_overrides(write):
    profile = load_hardware(write('base = "h200-sxm"\nsm_count = 66\n[host]\nkernel_s = 1e-6\n' + SOURCE))
    base = load_hardware("h200-sxm")
    assert (profile.name, profile.sm_count, profile.host.kernel_s) == ("mine", 66, 1e-6)
    assert profile.host.exchange_s == base.host.exchange_s
    assert profile.kernels == base.kernels
    assert (profile.sources["sm_count"].basis, profile.sources["sm_count"].relative_error) == ("calibrated", 0.02)
    assert "names no source" in profile.sources["host.kernel_s"].reference
    assert profile.sources["sm_arch"].reference.startswith("as h200-sxm: as h100-sxm: ")


def test_a_base_without_what_we_calibrated(write):
    """What is fitted to other people's measurements does not move when ours do."""
    published = load_published("h100-sxm")
    assert published.kernels["cudnn"] != load_hardware("h100-sxm").kernels["cudnn"]
    pinned = load_hardware(write('base = "h100-sxm"\ncalibrated = false\nhbm_bytes_per_s = 3e12\n'))
    assert pinned.kernels == published.kernels and pinned.hbm_bytes_per_s == 3e12
    assert not [term for term, source in pinned.sources.items() if source.basis == "calibrated"]


def test_false_leaves_out_a_table_of_the_base(write):
    profile = load_hardware(write('base = "h100-sxm"\n[kernels]\nflash3 = false\nflex = false\n'))
    assert set(profile.kernels) == {"cudnn", "flash2", "triton"}
    assert not [term for term in profile.sources if "flash3" in term]


def test_efficiency_is_linear_between_head_dims_and_constant_beyond(write):
    text = 'base = "h100-sxm"\n[kernels.flash2.forward]\nefficiency = { 64 = 0.2, 128 = 0.4, 256 = 0.3 }\n'
    curve = load_hardware(write(text)).kernels["flash2"].forward
    shares = [curve.efficiency_at(dim) for dim in (32, 64, 96, 128, 192, 512)]
    assert shares == pytest.approx([0.2, 0.2, 0.3, 0.4, 0.35, 0.3])


def test_outside_fit_names_what_was_not_measured():
    profile = load_hardware("a800")
    assert profile.outside_fit("flash2", 8192, 128) is None
    assert "queries" in profile.outside_fit("flash2", 2**21, 128)
    assert "head dim 64" in profile.outside_fit("flash2", 8192, 64, "backward")


NUMBER = 'base = "h100-sxm"\nsm_count = 1\n'
FAULTS = {
    "unknown base": 'base = "h300"',
    "is not TOML": "sm_count = ",
    "sm_count is not valid": 'base = "h100-sxm"\nsm_count = 0',
    "hbm_bytes_per_s is not valid": 'base = "h100-sxm"\nhbm_bytes_per_s = inf',
    "extra_term is not valid": 'base = "h100-sxm"\nextra_term = 1',
    "its terms is not valid": 'base = "h100-sxm"\ndefault_kernel = "flash9"',
    "elementwise.efficiency.copy is not valid": 'base = "h100-sxm"\n[elementwise.efficiency]\ncopy = 1.5',
    "more": "sm_count = 132",
    "names no number": 'base = "h100-sxm"\n[[source]]\nterms = ["sm_cuont"]\nbasis = "datasheet"\nreference = "x"',
    "no known basis": NUMBER + '[[source]]\nterms = ["sm_count"]\nbasis = "guess"\nreference = "x"',
    "has no reference": NUMBER + '[[source]]\nterms = ["sm_count"]\nbasis = "datasheet"\n',
    "bad relative_error": NUMBER + SOURCE.replace("0.02", "-1"),
    "is malformed": NUMBER + SOURCE.replace('["sm_count"]', '"sm_count"'),
    "is no table": 'base = "h100-sxm"\nsource = [3]',
}


@pytest.mark.parametrize(("part", "text"), FAULTS.items())
def test_faults_are_one_message_that_names_the_file(write, part, text):
    path = write(text)
    with pytest.raises(InputError, match=part) as raised:
        load_hardware(path)
    assert str(path) in raised.value.message


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a = " + b"[" * 50_000, b"#" * (2**20 + 1)])
def test_hostile_files(write, text):
    with pytest.raises(InputError):
        load_hardware(write(text))


@pytest.mark.parametrize("name", ["h100", "no/such/file.toml", "a\0b", "."])
def test_unknown_names(name):
    with pytest.raises(InputError, match="no such hardware|cannot be read"):
        load_hardware(name)


def test_a_profile_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        load_hardware("h100-sxm").sm_count = 1


def test_unknown_parts_are_named():
    profile = load_hardware("a100-80")
    with pytest.raises(InputError, match="no matrix units for fp8"):
        profile.peak("fp8")
    with pytest.raises(InputError, match="no kernel flash3"):
        profile.kernel("flash3")
    with pytest.raises(InputError, match="unknown direction"):
        profile.kernel("flash2").direction("sideways")
