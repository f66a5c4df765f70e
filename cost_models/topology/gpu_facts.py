"""What a topology file leaves to NCCL's probing: the model of GPU, its NVLinks; and checks of what the file does say.

The model comes from the PCI device id, else from the user (``gpu=``), else from the compute capability. If no GPU of
the file has NVLinks, the model's boards have NVSwitches and the machine has eight GPUs, all get the model's links.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from cost_models.topology.gpus import GpuModel, model_of_device, model_of_hardware, model_of_sm
from cost_models.topology.links import GB_PER_S, nvlink_bytes_per_s
from cost_models.topology.tree import NVSWITCH, Host, PciDevice
from traces.errors import InputError

SLOW_SWITCH_SHARE = 4
"""A switch whose own link is slower than its GPU's by more than this is wrong in the file."""


def model_of_elements(root: Element, gpu: str | None, warnings: list[str]) -> GpuModel | None:
    """Model of the GPUs of a NCCL topology; appends to ``warnings`` what was guessed."""
    devices = sorted({device for element in root.iter("pci") if (device := _gpu_device(element))})
    found = [model_of_device(device) for device in devices]
    if len(devices) > 1:
        warnings.append(f"GPUs of several models ({', '.join(devices)}): all are taken for the first")
    if found and found[0]:
        _check_claim(found[0], gpu)
        if found[0].hardware is None:
            warnings.append(f"GPUs are {found[0].name}, for which there is no hardware profile: name one with gpu=")
        return found[0]
    if gpu is not None:
        return model_of_name(gpu, warnings)
    return _guess(root, devices, warnings)


def model_of_name(gpu: str, warnings: list[str]) -> GpuModel | None:
    """Model behind a hardware name; appends to ``warnings`` if it is not a known one (a file of the user's)."""
    model = model_of_hardware(gpu)
    if model is None:
        warnings.append(f"{gpu} is not a GPU known here: NVLinks and PCIe are those that the topology file names")
    return model


def _gpu_device(element: Element) -> str:
    is_gpu = element.find("gpu") is not None or element.get("class", "").startswith("0x03")
    return element.get("device", "") if is_gpu and element.get("vendor", "0x10de") == "0x10de" else ""


def _check_claim(found: GpuModel, gpu: str | None) -> None:
    if gpu is not None and found.hardware is not None and gpu != found.hardware and model_of_hardware(gpu):
        raise InputError(
            "the topology file has other GPUs",
            got=f"gpu {gpu}",
            expected=f"{found.hardware} ({found.name})",
            remedy="leave gpu out",
        )


def _guess(root: Element, devices: list[str], warnings: list[str]) -> GpuModel | None:
    capabilities = {gpu.get("sm", "") for gpu in root.iter("gpu")}
    model = model_of_sm(int(sm)) if len(capabilities) == 1 and (sm := capabilities.pop()).isdecimal() else None
    if model:
        warnings.append(
            f"model of GPU is not in the file: {model.hardware} assumed from sm {model.sm}; name it with gpu="
        )
    else:
        known = f" (PCI device {', '.join(devices)})" if devices else ""
        warnings.append(f"model of GPU is not in the file{known}: no NVLinks are added; name it with gpu=")
    return model


def complete_hosts(hosts: Iterable[Host], model: GpuModel | None, warnings: list[str], lists_nvlinks: bool) -> None:
    """Add the NVLinks that NCCL would find by itself, and warn of PCI links that cannot be right.

    Parameters
    ----------
    hosts : what the file describes.
    model : model of the GPUs, None if unknown.
    warnings : appended to.
    lists_nvlinks : the file names NVLinks, be they usable or not; then NCCL does not look for others.
    """
    for host in hosts:
        gpus = host.gpus()
        if not lists_nvlinks:
            _add_known_nvlinks(gpus, model, warnings)
        _check_switches(host, warnings)
        _check_nics(host, warnings)
    if model and not model.pcie_p2p:
        warnings.append(f"{model.name} has no peer-to-peer over PCIe (its driver refuses it): through host memory")


def _add_known_nvlinks(gpus: list[PciDevice], model: GpuModel | None, warnings: list[str]) -> None:
    if model is None or not model.nvlinks:
        return
    if not (model.nvswitch and len(gpus) == 8):
        _say(warnings, f"no NVLinks in the file, though {model.name} may have {model.nvlinks}: PCIe alone is used")
        return
    rate = model.nvlinks * nvlink_bytes_per_s(model.sm)
    for device in gpus:
        if device.gpu:
            device.gpu.nvlinks[NVSWITCH] = rate
    _say(
        warnings,
        f"no NVLinks in the file: {model.nvlinks} per GPU to NVSwitches added, as NCCL finds on 8x {model.name} "
        f"({rate / GB_PER_S:.1f} GB/s)",
    )


def _check_switches(host: Host, warnings: list[str]) -> None:
    slow = [(switch, fastest) for switch in host.pci_devices() if (fastest := _too_fast_below(switch))]
    if slow:
        switch, fastest = min(slow, key=lambda pair: pair[0].link_bytes_per_s)
        warnings.append(
            f"PCI switches with a link of {switch.link_bytes_per_s / GB_PER_S:.3g} GB/s above GPUs of "
            f"{fastest / GB_PER_S:.3g} GB/s ({len(slow)}, as {switch.busid}): probably virtual switches, and wrong; "
            "NCCL believes them: correct link_speed and link_width in the file"
        )


def _check_nics(host: Host, warnings: list[str]) -> None:
    for device in host.pci_devices():
        ports = sum(port.bytes_per_s for port in device.ports)
        if ports > SLOW_SWITCH_SHARE * device.link_bytes_per_s:
            warnings.append(
                f"NIC {device.busid} has ports of {ports / GB_PER_S:.3g} GB/s behind a PCI link of "
                f"{device.link_bytes_per_s / GB_PER_S:.3g} GB/s: the link is probably wrong in the file"
            )


def _too_fast_below(switch: PciDevice) -> float:
    """Rate of the fastest GPU below a switch, if it is out of proportion to the switch's own link; else 0."""
    fastest = max((below.link_bytes_per_s for below in _below(switch) if below.gpu), default=0.0)
    return fastest if switch.link_bytes_per_s * SLOW_SWITCH_SHARE <= fastest else 0.0


def _below(device: PciDevice) -> list[PciDevice]:
    found = list(device.children)
    for child in found:  # grows while walked
        found.extend(child.children)
    return found


def _say(warnings: list[str], text: str) -> None:
    if text not in warnings:
        warnings.append(text)
