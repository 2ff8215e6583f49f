"""What it was measured on, without names of people or places."""

import os
import platform
from datetime import datetime, timezone
from pathlib import Path


def describe():
    cpus = Path("/proc/cpuinfo").read_text()
    model = next((line for line in cpus.splitlines() if line.startswith("model name")), ": unknown")
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": f"{len(os.sched_getaffinity(0))} cores, {model.partition(':')[2].strip()}",
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "system": f"Linux {platform.release()}, {platform.machine()}",
        # Above the cores, others were measured too.
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
