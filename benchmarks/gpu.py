"""What a GPU does: the CPU's numbers on CUDA, figure A with 20 seeds, stacks of 1 to 200 runs, permuted MNIST at paper size.

`make gpu` runs it. It needs no network where CLBOOK_DATA holds MNIST and, beside PyTorch, only what `import clbook` needs;
packages that the machine lacks are taken from wheels in the folder .wheels, which `make gpu-wheels` fills on a machine with a
network. Every step is written to benchmarks/gpu.json as soon as it is done, so a run that is cut short keeps what it has; no
step begins after --minutes.

    python benchmarks/gpu.py [--device cpu --small] [--minutes 9] [--out benchmarks/gpu.json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("pydantic", "jaxtyping", "tqdm", "numpy", "scipy", "matplotlib", "seaborn", "pandas", "sklearn")


def provide() -> None:
    """Make `clbook` importable: from this checkout, with what is missing taken from the wheels beside it."""
    sys.path.insert(0, str(ROOT))
    if not (missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]):
        return
    wheels = sorted(map(str, (ROOT / ".wheels").glob("*.whl")))
    if not wheels:
        lacks = f"{sys.executable} has no {', '.join(missing)}"
        sys.exit(f"{lacks}: pip install them, or run make gpu-wheels where there is a network")
    site = tempfile.mkdtemp()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", site, *wheels]
    subprocess.run(pip, check=True)
    sys.path.insert(1, site)


def same_as_cpu(device: str, small: bool) -> dict[str, Any]:
    """Every method trained on the CPU and on the device in float64, from the same seeds: the largest difference in theta."""
    import torch

    from clbook import methods, run

    found = {}
    for name in methods.__all__:
        method, (scenario, net) = made(getattr(methods, name)), stream(name)
        scenario = scenario.to("cpu", torch.float64)
        how: dict[str, Any] = {"net": net, "steps": 5, "batch_size": 8, "lr": 0.01, "progress": False}
        both = [run(scenario, method, 2, device=d, **how) for d in ("cpu", device)]
        gaps = [float((a - b).abs().max()) for a, b in zip(both[0].theta, both[1].theta, strict=True) if a.numel()]
        found[name] = max(gaps, default=0.0)
    return {"largest difference": found, "all below 1e-7": max(found.values()) < 1e-7}


def stream(name: str) -> tuple[Any, Any]:
    """Three tasks on which the method of that name can be tried, and a network."""
    import torch

    from clbook import AnyOf, Data, mlp, sequence, split, transformer

    data = random_data(240, 12, 6)
    if name in ("OwnAnswers", "PolicyGradient"):  # several right answers: a class and the next one
        right = torch.eye(6) + torch.eye(6).roll(1, 1)
        several = replace(data, y=right[data.y], y_test=right[data.y_test])
        return replace(sequence([several] * 3, kind="domain"), likelihood=AnyOf()), mlp(12, 6, (16,))
    if name in ("PseudoRehearsal", "RecordedReplay"):  # they are for text
        x = torch.randint(12, (40, 9), generator=torch.Generator().manual_seed(0))
        text = Data(x[:30, :-1], x[:30, 1:], x[30:, :-1], x[30:, 1:], "text", (8,), 12)
        return sequence([text] * 3, kind="domain"), transformer(12, 8, width=8, heads=2, depth=1)
    return split(data, 3, kind="task"), mlp(12, 6, (16,))


def made(cls: type) -> Any:
    """A method at a size for a small network."""
    small = {"KWTA": {"k": 3}, "DGR": {"z": 4, "hidden": 8}, "DERpp": {"size": 20}}.get(cls.__name__, {})
    try:
        return cls(**small)
    except Exception:  # a strength is required
        return cls(lam=1.0, **small)


def figure_a(device: str, small: bool) -> dict[str, Any]:
    """ewc-a with 20 seeds: seconds, and what the report says beside the references."""
    from clbook.lab.experiments import EXPERIMENTS, reproduce
    from clbook.lab.kirkpatrick import THREE

    preset = "quick" if small else "book"
    how: dict[str, Any] = {"device": device, "allow_mixed_code": True, "progress": False, "quiet": True}
    sizes = replace(THREE[preset], seeds=2 if small else 20)
    with tempfile.TemporaryDirectory() as out:
        report = reproduce("ewc-a", preset, out, sizes=sizes, **how)
    return {"seeds": sizes.seeds, "table": report.table(EXPERIMENTS["ewc-a"].reference)}


def stacks(device: str, small: bool) -> dict[str, Any]:
    """Seconds a run of EWC on permuted tasks, for stacks of 1 to 200 runs of two networks."""
    from clbook import mlp, permuted, run
    from clbook.methods import EWC

    scenario, rows = permuted(images(small), 2), []
    for hidden in ((50,), (400, 400)):
        for runs in (1, 2) if small else (1, 2, 5, 10, 20, 50, 100, 200):
            how: dict[str, Any] = {"net": mlp(scenario.data.x.shape[1], 10, hidden), "steps": 20 if small else 200}
            seconds = timed(lambda h=how, n=runs: run(scenario, EWC(lam=10.0), n, chunk=n, device=device, progress=False, **h))
            rows.append({"hidden": hidden, "runs": runs, "seconds a run": seconds / runs})
    return {"rows": rows}


def permuted_paper(device: str, small: bool) -> dict[str, Any]:
    """Ten permuted tasks, two layers of 1,000 units, 5,000 steps a task: fine-tuning, EWC and SI, accuracy and seconds."""
    from clbook import metrics, mlp, permuted, run
    from clbook.methods import EWC, SI, Finetune

    scenario, rows = permuted(images(small), 2 if small else 10, kind="domain"), []
    how: dict[str, Any] = {"batch_size": 128, "optimizer": "adam", "lr": 2e-3, "lr_decay": True, "steps": 20 if small else 5000}
    for name, method in {"fine-tuning": Finetune(), "EWC": EWC(lam=100.0), "SI": SI(lam=3.0)}.items():
        net = mlp(scenario.data.x.shape[1], 10, (20,) if small else (1000, 1000))
        start = time.perf_counter()
        result = run(scenario, method, 2 if small else 5, net=net, device=device, progress=False, **how)
        mean, half = metrics.interval(100 * metrics.average_accuracy(result.R))
        rows.append({"method": name, "accuracy": float(mean), "interval": float(half), "seconds": time.perf_counter() - start})
    return {"rows": rows}


def cuda_tests(device: str, small: bool) -> dict[str, Any]:
    """The package's own tests on CUDA, where pytest is there: what its last line says."""
    if importlib.util.find_spec("pytest") is None:
        return {"pytest": "not installed here"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_loop.py", "-k", "cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment())
    return {"pytest": (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]}


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[:2])}


def random_data(n: int, inputs: int, classes: int) -> Any:
    """Classes as clouds about random centres, with values between 0 and 1."""
    import torch

    from clbook import Data

    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % classes
    x = torch.sigmoid(torch.randn(classes, inputs, generator=g)[y] + 0.3 * torch.randn(n, inputs, generator=g))
    return Data(x, y, x[:60], y[:60], "clouds", (1, 1, inputs), classes)


def images(small: bool) -> Any:
    """MNIST; digits where it is small."""
    from clbook import load

    return load("digits" if small else "mnist")


def timed(f: Callable[[], object]) -> float:
    """Seconds that f takes, after once to warm up; a GPU has then finished."""
    import torch

    f()
    start = time.perf_counter()
    f()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


STEPS = (same_as_cpu, cuda_tests, figure_a, stacks, permuted_paper)  # the most telling first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a trial run, on digits")
    parser.add_argument("--steps", nargs="*", choices=[step.__name__ for step in STEPS], help="only these")
    parser.add_argument("--minutes", type=float, default=9.0, help="no step begins after this")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu.json")
    options = parser.parse_args()
    provide()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device here; --device cpu --small tries the script without one")
    from clbook.lab.provenance import commit

    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or "CPU"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "commit": commit(), "small": options.small}
    found["steps"] = {}
    began = time.perf_counter()
    for step in (s for s in STEPS if not options.steps or s.__name__ in options.steps):
        if time.perf_counter() - began > 60 * options.minutes:
            found["steps"][step.__name__] = {"left out": f"after {options.minutes:g} minutes"}
            write(options.out, found)
            continue
        start = time.perf_counter()
        try:
            found["steps"][step.__name__] = step(options.device, options.small)
        except Exception as error:  # the steps after it are worth having all the same
            found["steps"][step.__name__] = {"failed": f"{type(error).__name__}: {error}"}
        found["steps"][step.__name__]["took"] = round(time.perf_counter() - start, 1)
        write(options.out, found)
        print(step.__name__, json.dumps(found["steps"][step.__name__])[:600], flush=True)


if __name__ == "__main__":
    main()
