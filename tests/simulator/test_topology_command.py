"""``attnsim topology``: with bandwidths, NCCL's variables and a page."""

import json

import pytest

import attnsim


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        attnsim.main(["topology", *arguments])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def test_bandwidth_in_json_and_tables(capsys):
    code, out, err = run(capsys, "dgx-h100", "--gpus", "16", "--bandwidth", "--json", "-")
    facts = json.loads(out)
    assert code == 0
    assert [each["pattern"] for each in facts["bandwidth"]["patterns"]] == [
        "ring", "ring_of_16_mib", "all_to_all", "all_gather",
    ]  # fmt: skip
    assert "Channels that NCCL finds" in err


def test_without_it_there_is_none(capsys):
    code, out, _ = run(capsys, "pcie-8x", "--json", "-")
    assert code == 0
    assert "bandwidth" not in json.loads(out)


def test_nccl_variables_change_the_way(capsys):
    _, out, _ = run(capsys, "pcie-8x", "--nccl", "NCCL_P2P_LEVEL=SYS", "--json", "-")
    assert json.loads(out)["matrix"][0][4]["kind"] == "pcie"
    code, _, err = run(capsys, "pcie-8x", "--nccl", "NCCL_P2P_LEVEL")
    assert code == 2
    assert "has no value" in err


def test_page(capsys, tmp_path):
    page = tmp_path / "page.html"
    code, _, _ = run(capsys, "dgx-a100", "--bandwidth", "--html", str(page))
    text = page.read_text()
    assert code == 0
    assert text.count('class="figure"') == 4
    assert "all-gather over 8 GPUs" in text


def test_an_unknown_gpu_must_be_named(capsys, tmp_path):
    path = tmp_path / "host.xml"
    place = '<pci busid="0000:0{0}:00.0" class="0x030000" vendor="0x10de" device="0x2236">'
    gpu = place + '<gpu dev="{0}" sm="86" rank="{0}"/></pci>'
    path.write_text(f'<system version="1"><cpu numaid="0">{gpu.format(0)}{gpu.format(1)}</cpu></system>')
    assert run(capsys, str(path), "--bandwidth")[0] == 2
    assert run(capsys, str(path), "--bandwidth", "--hardware", "l40s")[0] == 0


def test_simulations_take_the_variables_too():
    options = {"schedule": "ring", "topology": "pcie-8x", "gpus": 8, "hardware": "l40s", "seq_len": "8k"}
    shape = {"heads": 8, "kv_heads": 8, "head_dim": 128}
    usual = attnsim.simulate(**options, **shape)
    without = attnsim.simulate(**options, **shape, nccl=["NCCL_P2P_DISABLE=1"])
    assert without.inputs["nccl"] == ["NCCL_P2P_DISABLE=1"]
    assert without.communication_s > usual.communication_s


def test_links_are_listed_by_the_names_that_faults_take(capsys):
    code, out, err = run(capsys, "dgx-h100:fabric=fat-tree,nodes-per-leaf=1", "--gpus", "16", "--links", "--json", "-")
    names = [each["name"] for each in json.loads(out)["links"]]
    assert code == 0 and "gpu:3->nvs:0" in names and "leaf:0->spine" in names and len(set(names)) == len(names)
    assert "GPU 3" in err and "gpu:3->nvs:0" in err
    options = {"schedule": "ring", "topology": "dgx-h100:fabric=fat-tree,nodes-per-leaf=1", "gpus": 16, "seq_len": "8k"}
    shape = {"heads": 8, "kv_heads": 8, "head_dim": 128}
    for name in ("gpu:3->nvs:0", "leaf:0->spine"):
        assert attnsim.simulate(**options, **shape, slow_link=[f"{name}:0.5"]).time_s > 0


def test_an_unknown_link_is_told_which_are_alike():
    with pytest.raises(attnsim.InputError, match="as gpu:3->nvs:0, .* --links lists them"):
        attnsim.simulate(
            schedule="ring", topology="dgx-h100", gpus=8, seq_len="8k", heads=8, kv_heads=8, head_dim=128,
            slow_link=["gpu:3->nvs:1:0.5"],
        )  # fmt: skip
