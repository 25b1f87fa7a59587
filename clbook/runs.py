"""One run or many that train as one batch: the only file that knows how runs are stacked.

Runs of one method that differ in seed and hyper-parameters are stacked, Theta [R, P], and a hook is called for all of them at
once: `torch.func.vmap` of the one-run hook. So each run gets what it would get alone. A single run is called as it stands.
Book: notebooks/01_forgetting, "The same by run".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import vmap

from clbook import tree
from clbook.checks import InputError, short
from clbook.method import Method, State, Update
from clbook.net import Net
from clbook.sampling import generator
from clbook.scenarios import Batch, Scenario, Task

if TYPE_CHECKING:
    from clbook.loop import Training

HOOKS = ("before_task", "prepare", "observe", "direction", "after_step", "after_task")


class Runs:
    """R runs: theta [R, P], state and hyper-parameters with a leading axis of runs, generators, and one optimiser for all.

    `alive` [R] says which have not diverged. A run that has keeps its theta and takes another's state from then on, since a
    method may change its shapes between tasks; what is measured of it stays NaN.
    """

    def __init__(self, jobs: list[tuple[Method, int]], net: Net, scenario: Scenario, dtype: torch.dtype) -> None:
        self.methods, self.seeds = [m for m, _ in jobs], [s for _, s in jobs]
        self.method, self.net = self.methods[0], net
        device = scenario.device
        net.module.to(device)
        self.parameter = torch.nn.Parameter(torch.stack([net.init(s).to(device, dtype) for s in self.seeds]))
        self.hyper = {
            name: torch.tensor([m.hyper[name] for m in self.methods], device=device, dtype=dtype) for name in self.method.hyper
        }
        self.dropout_rng = [generator(s, "dropout") for s in self.seeds]
        self.method_rng = [generator(s, "method") for s in self.seeds]
        self.state: State = self._stack([m.start(net, t) for m, t in zip(self.methods, self.theta, strict=True)], "start")
        self.alive: Bool[Tensor, " R"] = torch.ones(len(jobs), dtype=torch.bool)
        self.optimizer: torch.optim.Optimizer | None = None
        self._changed = {hook for hook in HOOKS if getattr(type(self.method), hook) is not getattr(Method, hook)}
        self._tried: set[str] = set()

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def theta(self) -> Float[Tensor, "R P"]:
        """The parameters of all runs. The optimiser changes them in place: clone what is to be kept."""
        return self.parameter.detach()

    # one step, in the order of the loop ---------------------------------------------------------------------------------

    def prepare(self, scenario: Scenario, k: int, batch: Batch) -> Batch:
        """The batch with dropout's gates and with what each run's method puts beside it."""
        gates = [self.net.dropout((batch.row.shape[1],), g) for g in self.dropout_rng]
        batch = batch._replace(gates=self._stack(gates, "dropout"))
        if "prepare" not in self._changed:
            return batch
        each = []
        for r, m in enumerate(self.methods):
            each.append(m.prepare(tree.take(self.state, r), scenario, k, tree.take(batch, r), self.method_rng[r]))
        return batch._replace(**self._stack([{"old": b.old, "drawn": b.drawn} for b in each], "prepare"))

    def observe(self, scenario: Scenario, batch: Batch) -> None:
        """What each run's method makes of a batch that has come in."""
        if "observe" in self._changed:
            look = lambda r, m, t, s: m.observe(self.net, t, s, scenario, tree.take(batch, r), self.method_rng[r])  # noqa: E731
            self.state = self._stack(self._one_by_one(look), "observe")

    def direction(self, batch: Batch) -> Float[Tensor, "R P"]:
        """What the optimiser takes for the gradient of every run."""
        if len(self) == 1 and "direction" not in self._changed:
            theta, state, one = tree.take((self.theta, self.state, batch), 0)
            found = torch.autograd.grad(self.method.loss(self.net, theta.requires_grad_(), state, one), theta)[0][None]
            self._try_stacked("loss", lambda m, *a: m.loss(self.net, *a), self.theta, self.state, batch)
            return found
        return self._each("direction", lambda m, *a: m.direction(self.net, *a), self.theta, self.state, batch)

    def descend(self, direction: Float[Tensor, "R P"], lr: float, done: float) -> None:
        """One step of the optimiser with this lr, and what the method makes of it.

        torch.optim is elementwise, so one optimiser serves all runs as they are. `done` is the share of the task then over.
        """
        assert self.optimizer is not None, "before_task makes the optimiser"
        reacts = "after_step" in self._changed
        before = self.theta.clone() if reacts else self.theta
        self.parameter.grad = direction.contiguous()
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        if reacts:
            update = Update(before, direction, self._eta(), self.theta.new_full((len(self),), done))
            theta, state = self._each("after_step", lambda m, *a: m.after_step(*a), self.theta, self.state, update)
            self.parameter.data = theta.contiguous()  # fused optimisers read the memory as it lies there
            home = self.theta.untyped_storage().data_ptr()  # a state that shares it would change with the next step
            self.state = {k: v.clone() if v.untyped_storage().data_ptr() == home else v for k, v in state.items()}

    # before and after a task --------------------------------------------------------------------------------------------

    def before_task(self, task: Task, training: Training) -> None:
        """What the method does before a task, and a fresh optimiser (or the one kept)."""
        self._tried.clear()  # a hook may do something else in another task
        if "before_task" in self._changed and self.alive.any():
            new = self._one_by_one(lambda r, m, t, s: m.before_task(self.net, t, s, task, self.method_rng[r]))
            theta = torch.stack([theta for theta, _ in new])
            self.parameter.data.copy_(torch.where(self.alive[:, None].to(theta.device), theta, self.theta))
            self.state = self._stack([state for _, state in new], "before_task")
        kept = self.optimizer.state_dict() if training.keep_optimizer and self.optimizer is not None else None
        self.new_optimizer(training, kept)

    def after_task(self, task: Task) -> None:
        """What the method remembers of a task."""
        if "after_task" in self._changed and self.alive.any():
            new = self._one_by_one(lambda r, m, t, s: m.after_task(self.net, t, s, task, self.method_rng[r]))
            self.state = self._stack(new, "after_task")

    def new_optimizer(self, training: Training, state: dict[str, Any] | None = None) -> None:
        """A torch.optim optimiser over all runs, with the state given."""
        fused = self.theta.dtype == torch.float32 and self.theta.device.type in ("cpu", "cuda")
        self.optimizer = training.optimizer_class([self.parameter], lr=training.lr, fused=fused)
        if state is not None:
            self.optimizer.load_state_dict(state)

    # looking at the runs ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def scores(self, batch: Batch) -> Float[Tensor, "R M"]:
        """Every run's score for every sample of a batch [M, ...] that is the same for all."""
        judge = self.net.likelihood.score
        one = lambda m, t, s: judge(m.predict(self.net, t, s, batch), batch.y, batch.mask)  # noqa: E731
        return self._each("predict", one, self.theta, self.state)

    def memory_bytes(self, scenario: Scenario) -> list[int]:
        """What each run's method keeps between tasks."""
        return [m.memory_bytes(tree.take(self.state, r), scenario) for r, m in enumerate(self.methods)]

    def check_finite(self) -> list[int]:
        """The runs whose parameters have stopped being finite since the last look; they are no longer alive."""
        gone = self.alive & ~torch.isfinite(self.theta.sum(1)).cpu()
        self.alive &= ~gone
        return gone.nonzero().flatten().tolist()

    def saved(self) -> dict[str, Tensor]:
        """Everything that a run needs to go on, by name."""
        kept: dict[str, Any] = {} if self.optimizer is None else next(iter(self.optimizer.state.values()), {})
        return {
            "theta": self.theta,
            "alive": self.alive,
            "dropout_rng": torch.stack([g.get_state() for g in self.dropout_rng]),
            "method_rng": torch.stack([g.get_state() for g in self.method_rng]),
            **{f"state.{name}": v for name, v in self.state.items()},
            **{f"optimizer.{name}": v for name, v in kept.items() if isinstance(v, Tensor)},
        }

    def restore(self, saved: dict[str, Tensor], training: Training) -> None:
        """Go back to what `saved` gave."""
        device = self.theta.device
        self.parameter.data.copy_(saved["theta"])
        self.alive = saved["alive"]
        for generators, states in ((self.dropout_rng, saved["dropout_rng"]), (self.method_rng, saved["method_rng"])):
            for g, state in zip(generators, states, strict=True):
                g.set_state(state.clone())  # of a view, PyTorch reads beyond the end
        part = lambda name: {k.removeprefix(name): v for k, v in saved.items() if k.startswith(name)}  # noqa: E731
        self.state = {name: v.to(device) for name, v in part("state.").items()}
        self.new_optimizer(training)
        if (kept := part("optimizer.")) and self.optimizer is not None:
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": {0: kept}})

    # stacking -----------------------------------------------------------------------------------------------------------

    def _each(self, hook: str, f: Callable[..., Any], *args: Any) -> Any:
        """f(method, *args) of every run, with a leading axis of runs in all of `args` and in what comes back."""
        if len(self) == 1:
            found = tree.add_axis(f(self.method, *tree.take(args, 0)))
            self._try_stacked(hook, f, *args)
            return found
        try:
            return self._stacked(f, *args)
        except RuntimeError as error:
            if "vmap" in str(error) or "functorch" in str(error):
                raise self._cannot(hook, error) from error
            raise

    def _stacked(self, f: Callable[..., Any], *args: Any) -> Any:
        def one(hyper: dict[str, Tensor], args: Any) -> Any:
            return f(self.method.bind(hyper), *args)

        return vmap(one, (tree.dims(self.hyper), tree.dims(args)))(self.hyper, args)

    def _try_stacked(self, hook: str, f: Callable[..., Any], *args: Any) -> None:
        """Call a hook once as a stack would, so that what cannot be stacked says so with one seed as with two."""
        if self.method.stacks and self.net.stacks and hook not in self._tried:
            self._tried.add(hook)
            try:
                self._stacked(f, *args)
            except (RuntimeError, ValueError, TypeError) as error:
                raise self._cannot(hook, error) from error

    def _cannot(self, hook: str, error: Exception) -> InputError:
        return InputError(
            f"{self.method.label}.{hook} cannot be computed for several runs at once, because it asks for the value of a "
            "tensor (if, int(), .item()) or draws random numbers. Write torch.where instead of if and draw in `prepare`, "
            f"or say `stacks = False` in the class, and every run trains by itself. PyTorch says: {_first_line(error)}"
        )

    def _one_by_one(self, f: Callable[[int, Method, Tensor, State], Any]) -> list[Any]:
        """f of each run that is alive, one after the other; a run that has diverged gets what the first one alive gets."""
        live = self.alive.nonzero().flatten().tolist()
        new = {r: f(r, self.methods[r], self.theta[r], tree.take(self.state, r)) for r in live}
        return [new.get(r, new[live[0]]) for r in range(len(self))]

    def _stack(self, trees: list[Any], hook: str) -> Any:
        if len(trees) > 1 and len(forms := dict.fromkeys(map(tree.form, trees))) > 1:
            raise InputError(
                f"{self.method.label}.{hook} gives the runs different things, and what is stacked must be alike in names, "
                "shapes and types. Say `stacks = False` in the class, and every run trains by itself. "
                f"Got {short(list(forms), 300)}"
            )
        return tree.stack(trees, self.theta.device)

    def _eta(self) -> Tensor:
        """The step size of the optimiser's last step, for each run [R]: lr, or for Adam [R, P] lr / (sqrt(v_hat) + eps)."""
        assert self.optimizer is not None
        group, kept = self.optimizer.param_groups[0], self.optimizer.state[self.parameter]
        lr: float = group["lr"]
        if "exp_avg_sq" not in kept:
            return self.theta.new_full((len(self),), lr)
        correction = (1 - group["betas"][1] ** float(kept["step"])) ** 0.5
        return kept["exp_avg_sq"].sqrt().div_(correction).add_(group["eps"]).reciprocal_().mul_(lr)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
