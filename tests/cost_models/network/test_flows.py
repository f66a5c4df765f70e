"""Links of many flows at once are those of `ClusterTopology.route`, one by one."""

import numpy as np
import pytest

from cost_models.network import route_flows
from cost_models.topology import load_topology

CLUSTERS = {
    "rail": ("dgx-h100", 32, None),
    "fat-tree": ("dgx-a100:fabric=fat-tree,oversubscription=2,nodes-per-leaf=2", 40, None),
    "half nodes": ("pcie-8x", 12, 3),
    "nvl72": ("gb200-nvl72", 8, 2),
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_links_of_every_pair(name):
    topology = load_topology(CLUSTERS[name][0], *CLUSTERS[name][1:])
    src, dst = (index.ravel() for index in np.indices((topology.n_ranks, topology.n_ranks)))
    routes = route_flows(topology, src, dst)
    assert (np.diff(routes.flow) >= 0).all()
    found = np.split(routes.link, np.cumsum(np.bincount(routes.flow, minlength=len(src)))[:-1])
    for one, other, links, number in zip(src.tolist(), dst.tolist(), found, routes.route_class, strict=True):
        route = topology.route(one, other)
        assert sorted(links.tolist()) == sorted(route.links)
        kind = routes.classes[number]
        assert (kind.kind, kind.path_type, kind.bytes_per_s) == (route.kind, route.path_type, route.bytes_per_s)
