"""Laws: masks, models, hardware, topologies and what each operation costs. Imports only ``traces``."""
