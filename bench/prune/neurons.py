"""Accuracy against kept MACs on Fashion-MNIST: criteria, allocations, Torch-Pruning, small dense networks.

    python bench/prune/neurons.py                      # the plan of the table: 15,000 images, 3 epochs, 3 seeds
    python bench/prune/neurons.py --images 6000 --epochs 1 --seeds 1 --name quick
    python bench/prune/neurons.py --data reuters --images 4985 --name reuters
    python bench/prune/neurons.py --name quick --report

Every network gets the same recovery: AdamW (``--lr``, cosine) for ``--epochs``. Before it, what Luthier cuts is
re-fitted by least squares, as `compress` does it; batch norms of all others are recalibrated. The deciding cells of
all seeds come first, then allocations and criteria. Cells are stored one by one in results/NAME.jsonl. Torch-Pruning's
rows need ``pip install --no-deps torch-pruning``.
"""

import argparse
import copy
import itertools
import warnings
from pathlib import Path

import torch
from cells import Cells, pivot
from data import fashion, reuters
from nets import Encoder, ResNet

import luthier as lt
from luthier import importance
from luthier.allocate import Rounding, allocate, measure_map
from luthier.allocate import names as allocation_names
from luthier.checkpoint import seeded
from luthier.model import analyse
from luthier.model.cost import count_macs
from luthier.surgery import cut
from luthier.surgery.reconstruct import reconstruct
from luthier.train import recalibrate

HERE = Path(__file__).parent
DATA = {"fashion": (fashion, ResNet), "reuters": (reuters, Encoder)}
NEUTRAL = "uniform"  # the allocation under which criteria are compared
DEFAULT = importance.AUTO[0]
BEST = ("l2", "fisher")  # the criteria under which allocations are compared
TEACHING = {"distilled, fading": {}, "distilled": {"losses": {"kl": 0.5, "task": 0.5}}}  # first as `distill` does it
FINE_TUNED = "fine-tuned"


class Bench:
    """One seed: a dense network and everything cut from it."""

    def __init__(self, args: argparse.Namespace, cells: Cells, seed: int) -> None:
        self.args, self.cells, self.seed = args, cells, seed
        read, self.network = DATA[args.data]
        parts = read(args.images, seed)
        self.prefix = "" if args.data == "fashion" else f"{args.data}-"
        self.task = lt.Task(**parts, batch_size=128, metrics=["accuracy"])
        x, y = parts["train"]
        self.sample = [(x[i : i + 128], y[i : i + 128]) for i in range(0, 1024, 128)]
        held = [tensor[:1024].split(256) for tensor in parts["valid"]]
        self.held_out = list(zip(*held, strict=True))
        self.inputs = x[:2]
        self.dense = self._dense()
        self.analysis = analyse(self.dense, self.inputs)
        self.dense_macs = count_macs(self.dense, x[:1])
        self._scores: dict[str, dict] = {}

    def _train(self, model: torch.nn.Module, epochs: int, lr: float, taught: str = FINE_TUNED) -> torch.nn.Module:
        how = {"epochs": epochs, "lr": lr, "seed": self.seed, "progress": False}
        if taught != FINE_TUNED:
            return lt.distill(model, self.dense, self.task, **TEACHING[taught], **how)
        return lt.fit(model, self.task, **how)

    def _dense(self) -> torch.nn.Module:
        file = (
            self.args.cache
            / f"dense-{self.prefix}{self.args.images}-{self.args.dense_epochs}-{self.args.dense_lr:g}-{self.seed}.pt"
        )
        with seeded(self.seed):
            model = self.network()
        if file.is_file():
            model.load_state_dict(torch.load(file))
        else:
            self._train(model, self.args.dense_epochs, self.args.dense_lr)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), file)
        model.eval()
        self.cells(f"dense|dense|1|{self.seed}", lambda: {"tuned": self.test(model)})
        return model

    def test(self, model: torch.nn.Module) -> float:
        return lt.evaluate(model, self.task.loader("test"), metrics=["accuracy"])["accuracy"]

    def scores(self, criterion: str) -> dict[str, torch.Tensor]:
        if not self._scores:  # one pass over the sample for all of them
            names = self.criteria_here
            found = importance.score_many(self.analysis, names, self.sample, "cross_entropy", seed=self.seed)
            self._scores = dict(zip(names, found, strict=True))
        return self._scores[criterion]

    @property
    def criteria_here(self) -> list[str]:
        """All of them; heads and hidden units of an encoder have no norm whose scale could count."""
        return [name for name in importance.names() if name != "bn_scale" or self.args.data == "fashion"]

    def map(self, criterion: str):
        return measure_map(
            self.analysis,
            self.scores(criterion),
            lambda m: importance.mean_loss(m, self.held_out, "cross_entropy"),
            cache=self.args.cache / f"map-{criterion}-{self.prefix}{self.args.images}-{self.seed}.json",
        )

    def pruned(self, criterion: str, allocation: str, kept: float, fitted: bool = True) -> torch.nn.Module:
        found = self.map(criterion) if allocation in ("sensitivity", "knapsack") else None
        with warnings.catch_warnings(action="ignore"):
            keep = allocate(
                self.analysis,
                self.scores(criterion),
                allocation,
                budget={"macs": kept},
                rounding=Rounding(minimum=2),
                sensitivity=found,
            )
        pruned = cut(self.dense, self.analysis, keep, check=False)
        if fitted:
            reconstruct(pruned.model, self.analysis, pruned.plan, self.sample)
        else:
            recalibrate(pruned.model, self.task)
        return pruned.model

    def row(self, model: torch.nn.Module, taught: str = FINE_TUNED) -> dict:
        out = {"macs": count_macs(model, self.inputs[:1]) / self.dense_macs, "cut": self.test(model)}
        self._train(model, self.args.epochs, self.args.lr, taught)
        return {**out, "tuned": self.test(model)}

    def cell(self, kind: str, kept: float, criterion: str, allocation: str, taught: str = FINE_TUNED) -> None:
        """A cell of our own; without the re-fit where its name does not say so."""
        fitted = "re-fitted" in kind or not kind.startswith("default")
        made = lambda: self.row(self.pruned(criterion, allocation, kept, fitted), taught)  # noqa: E731
        self.cells(f"{kind}|{kept:g}|{self.seed}", made)

    def deciding(self, kept: float) -> None:
        """The default, Torch-Pruning, and small dense networks."""
        at = f"{kept:g}|{self.seed}"
        for taught in (*TEACHING, FINE_TUNED):
            self.cell(f"default|auto, sensitivity, re-fitted in order, {taught}", kept, DEFAULT, "sensitivity", taught)
        for name in theirs():
            self.cells(f"Torch-Pruning|{name}|{at}", lambda name=name: self.their_row(name, kept))
        self.cell("default|auto, sensitivity, distilled", kept, DEFAULT, "sensitivity", "distilled")
        for name, taught in (("trained", FINE_TUNED), ("distilled", "distilled")):
            self.cells(f"small dense|{name}|{at}", lambda taught=taught: self.small(kept, taught))

    def allocations(self, kept: float) -> None:
        """Every allocation under the two best criteria, fine-tuned."""
        for criterion in BEST:
            for name in allocation_names():
                if name != "threshold":
                    self.cell(f"allocation|{criterion}, {name}", kept, criterion, name)

    def criteria(self, kept: float) -> None:
        """Every criterion with equal shares, fine-tuned."""
        for name in self.criteria_here:
            self.cell(f"criterion|{name}", kept, name, NEUTRAL)

    def small(self, kept: float, taught: str) -> dict:
        """A narrower network from the start, for as many epochs as the dense one's training and the recovery had."""
        widths = [w / 64 for w in range(4, 65)]
        costs = [count_macs(self.network(w), self.inputs[:1]) / self.dense_macs for w in widths]
        width = max(w for w, c in zip(widths, costs, strict=True) if c <= kept)
        with seeded(self.seed):
            model = self.network(width)
        epochs = self.args.dense_epochs + self.args.epochs
        self._train(model, epochs, self.args.small_lr or self.args.dense_lr, taught)
        return {"macs": count_macs(model, self.inputs[:1]) / self.dense_macs, "tuned": self.test(model)}

    def their_row(self, name: str, kept: float) -> dict:
        """A cell of Torch-Pruning's; its error where it has one."""
        try:
            return self.row(self.torch_pruned(name, kept))
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:200]}

    def torch_pruned(self, name: str, kept: float) -> torch.nn.Module:
        """Torch-Pruning's global pruning to the same MACs, by bisection on its ratio."""
        low, high, best = 0.0, 0.98, None
        for _ in range(7):
            ratio = (low + high) / 2
            model = self._torch_pruned(name, ratio)
            if count_macs(model, self.inputs[:1]) <= kept * self.dense_macs:
                high, best = ratio, model
            else:
                low = ratio
        best = best if best is not None else self._torch_pruned(name, high)
        recalibrate(best, self.task)
        return best

    def _torch_pruned(self, name: str, ratio: float) -> torch.nn.Module:
        import torch_pruning as tp

        model = copy.deepcopy(self.dense)
        measure = theirs()[name]()
        how = {
            "global_pruning": True,
            "pruning_ratio": ratio,
            "ignored_layers": [model.head, *(layer.qkv for layer in getattr(model, "layers", []))],  # else it fails
            "max_pruning_ratio": 0.95,
        }
        pruner = tp.pruner.BasePruner(model, self.inputs, importance=measure, **how)
        if name in ("taylor", "hessian"):
            self._gradients(model, measure, name)
        pruner.step()
        model.zero_grad(set_to_none=True)
        return model

    def _gradients(self, model: torch.nn.Module, measure, name: str) -> None:
        model.zero_grad()
        if name == "hessian":
            measure.zero_grad()
        for x, y in self.sample if name == "taylor" else self.sample[:1]:
            losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
            if name == "taylor":
                losses.mean().backward()
                continue
            for one in losses[:64]:
                model.zero_grad()
                one.backward(retain_graph=True)
                measure.accumulate_grad(model)


def theirs() -> dict:
    """Torch-Pruning's criteria; none where it is not installed."""
    try:
        import torch_pruning as tp
    except ImportError:
        print("Torch-Pruning's rows are left out: pip install --no-deps torch-pruning")
        return {}
    return {
        "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": tp.importance.GroupTaylorImportance,
        "hessian": tp.importance.GroupHessianImportance,
    }


def report(cells: Cells, kept: list[float]) -> None:
    for value, title in (("cut", "right after the cut, batch norms recalibrated"), ("tuned", "after recovery")):
        print(f"\nTest accuracy in %, {title}\n")
        for prefix in ("dense", "default", "Torch-Pruning", "small dense", "criterion", "allocation"):
            lines = pivot(cells.known, [1.0] if prefix == "dense" else kept, value, prefix)
            if len(lines) > 2:
                print("\n".join(lines), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=list(DATA), default="fashion")
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--dense-epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=5e-3, help="of the recovery")
    parser.add_argument("--dense-lr", type=float, default=3e-3)
    parser.add_argument("--small-lr", type=float, help="of small dense networks; as the dense one's, if not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=float, nargs="+", default=[0.25, 0.1, 0.5, 0.33])
    parser.add_argument("--name", default="fashion")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench-prune"))
    parser.add_argument("--only", default="", help="a regular expression: only these cells")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = Cells(HERE / "results" / f"{args.name}.jsonl", args.only)
    if not args.report:
        benches = [Bench(args, cells, seed) for seed in range(args.seeds)]
        for phase in (Bench.deciding, Bench.allocations, Bench.criteria):
            for kept, bench in itertools.product(args.kept, benches):
                phase(bench, kept)
    report(cells, sorted(args.kept, reverse=True))


if __name__ == "__main__":
    main()
