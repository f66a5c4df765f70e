"""The drawing of a topology: every link once, coloured by load; names that cannot be markup."""

from traces.figures.topology import STEPS, plot_topology

DEVICES = [
    {"name": "gpu:0", "kind": "gpu", "label": "GPU 0", "text": "GPU 0", "x": 0.0, "y": 1.0},
    {"name": "gpu:1", "kind": "gpu", "label": "GPU 1", "text": "GPU 1", "x": 1.0, "y": 1.0},
    {"name": "pci:<b>", "kind": "switch", "label": "<b>", "text": "PCIe <b>", "x": 0.5, "y": 0.0},
]
LINKS = [
    {"source": "gpu:0", "target": "pci:<b>", "load": 1.0, "text": "full <i>"},
    {"source": "pci:<b>", "target": "gpu:0", "load": 0.0, "text": "idle"},
    {"source": "pci:<b>", "target": "gpu:1", "load": 0.6, "text": "half"},
]


def traces():
    figure = plot_topology(DEVICES, LINKS, "Load <x>", "a note")
    return figure, {trace.name: trace for trace in figure.data if trace.name}


def test_links_are_coloured_by_load():
    _, named = traces()
    lines = {name: len(trace.x) // 3 for name, trace in named.items() if trace.mode == "lines"}
    assert lines["idle"] == lines["from 95%"] == lines["from 50%"] == 1
    assert sum(lines.values()) == len(LINKS)
    assert len(lines) == len(STEPS)


def test_a_link_in_use_is_not_idle_however_little():
    figure = plot_topology(DEVICES, [{**LINKS[0], "load": 1e-3}], "Load", "")
    shown = [trace.name for trace in figure.data if trace.mode == "lines" and trace.showlegend]
    assert shown == ["in use"]


def test_the_two_directions_are_apart():
    _, named = traces()
    there, back = named["from 95%"], named["idle"]
    assert (there.x[0], there.y[0]) != (back.x[1], back.y[1])


def test_devices_and_texts():
    figure, named = traces()
    assert list(named["GPU"].text) == ["GPU 0", "GPU 1"]
    assert [each.text for each in figure.layout.annotations] == ["GPU 0", "GPU 1", "&lt;b&gt;"]
    shown = figure.to_json()
    assert "<b>" not in named["PCIe switch"].text[0]
    assert "full &lt;i&gt;" in shown.replace("\\u0026", "&").replace("\\u003c", "<")


def test_a_device_of_another_kind_is_drawn_too():
    figure = plot_topology(
        [*DEVICES, {"name": "odd:0", "kind": "odd", "label": "", "text": "", "x": 0.2, "y": 0.2}], LINKS, "Load", ""
    )
    assert any(trace.name == "odd" and len(trace.x) == 1 for trace in figure.data)
