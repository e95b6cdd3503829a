"""What the panel has to do: tasks, one after the other, each with its state."""

import errno
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from .Jobs import Job, Listener, Problem, ignore
from .WorkerClient import WorkerClient

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


@dataclass(eq=False)
class Task:
    """A run that waits for its turn.

    Attributes:
        title: what the user reads in the queue and in the log.
        begin: called with a Listener when its turn has come; may raise UserError; returns a function that cancels.
        listener: of whoever made the task.
        state, problem: as it stands; problem is why it failed or was cancelled.
    """

    title: str
    begin: Callable[[Listener], Callable[[], None]]
    listener: Listener = field(default_factory=Listener)
    state: str = WAITING
    problem: str = ""


class JobQueue:
    """Runs tasks in order, one at a time. Knows no widgets.

    >>> jobs.run(_("Correct"), "correct", makeParams, onFinished=self._onCorrected, needs=[segmentationNode])

    `watcher` is a Listener that hears of every task (the run area); `onChanged()` is called whenever a task changes its
    state.
    """

    def __init__(self, worker: WorkerClient):
        self.worker = worker
        self.tasks: list[Task] = []
        self.watcher = Listener()
        self.onStarted: Callable[[Task], None] = ignore
        self.onChanged: Callable[[], None] = ignore
        self._cancel: Callable[[], None] = ignore

    @property
    def current(self) -> Task | None:
        return next((task for task in self.tasks if task.state == RUNNING), None)

    @property
    def isRunning(self) -> bool:
        return any(task.state in (WAITING, RUNNING) for task in self.tasks)

    def run(
        self, title: str, job: str, params: dict | Callable[[], dict], needs: Iterable = (), **callbacks: Callable
    ) -> Task:
        """Add a job of the worker; see Jobs.Listener for the callbacks.

        `params` may be a function that makes them when the job's turn has come: it writes the files, and may raise
        UserError. With `needs` the job is given up when one of these nodes, or the scene, goes.
        """

        def begin(listener: Listener) -> Callable[[], None]:
            return Job(self.worker, job, params() if callable(params) else params, listener, needs).cancel

        return self.add(Task(title, begin, Listener(**callbacks)))

    def add(self, task: Task) -> Task:
        """It begins at once if nothing is running."""
        if not self.isRunning:
            self.tasks.clear()
        self.tasks.append(task)
        self.onChanged()
        self._next()
        return task

    def cancel(self, task: Task | None = None) -> None:
        """Cancel a task, running or waiting; by default the running one."""
        task = task or self.current
        if task and task.state == RUNNING:
            self._cancel()
        elif task and task.state == WAITING:
            self._end(task, CANCELLED, "", lambda listener: listener.onCancelled(""))

    def cancelAll(self) -> None:
        for task in reversed(self.tasks):  # the running one last, or the next would begin
            self.cancel(task)

    def forget(self) -> None:
        """Drop all tasks; calls nobody back. The worker is left to its owner."""
        for task in self.tasks:
            task.listener = Listener()
        self.tasks.clear()
        self._cancel = ignore
        self.onChanged()

    def _next(self) -> None:
        waiting = next((task for task in self.tasks if task.state == WAITING), None)
        if self.current or not waiting:
            return
        waiting.state = RUNNING
        self.onStarted(waiting)
        self.onChanged()
        listener = self._listenerOf(waiting)
        try:
            self._cancel = waiting.begin(listener) or ignore
        except UserError as error:
            listener.onFailed(Problem(error.message, error.hint))
        except OSError as error:
            problem = _("The files for the job could not be written: {error}.").format(error=error)
            listener.onFailed(Problem(problem, diskHint(error), _trace()))
        except Exception as error:  # PythonQt would swallow it, and the panel would wait for ever
            problem = _("The job could not be started: {error}").format(error=error)
            listener.onFailed(Problem(problem, _("Send the details to the developers."), _trace()))

    def _listenerOf(self, task: Task) -> Listener:
        """Tells the watcher and the task's own listener, and keeps the state."""
        own, watcher = task.listener, self.watcher

        def both(name: str) -> Callable:
            return lambda *values: (getattr(watcher, name)(*values), getattr(own, name)(*values))

        listener = Listener(both("onProgress"), both("onMessage"), both("onMetric"), both("onPicture"))
        return replace(
            listener,
            onFinished=lambda *values: self._end(task, DONE, "", lambda to: to.onFinished(*values)),
            onFailed=lambda problem: self._end(task, FAILED, problem.message, lambda to: to.onFailed(problem)),
            onCancelled=lambda reason: self._end(task, CANCELLED, reason, lambda to: to.onCancelled(reason)),
        )

    def _end(self, task: Task, state: str, problem: str, tell: Callable[[Listener], None]) -> None:
        if task not in self.tasks:  # forgotten
            return
        wasRunning = task.state == RUNNING
        task.state, task.problem = state, problem
        if wasRunning:
            self._cancel = ignore
            tell(self.watcher)
        try:
            tell(task.listener)
        except UserError as error:
            task.state, task.problem = FAILED, error.message
            self.watcher.onFailed(Problem(error.message, error.hint))
        except Exception as error:  # as above
            task.state, task.problem = FAILED, str(error)
            problem = _("The result could not be placed in the scene: {error}").format(error=error)
            self.watcher.onFailed(Problem(problem, _("Send the details to the developers."), _trace()))
        self.onChanged()
        self._next()


def diskHint(error: OSError) -> str:
    """What the user can do when files for a job cannot be written."""
    if error.errno == errno.ENOSPC:
        return _("The disk is full: make room on the disk of Slicer's temporary folder.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _("Slicer may not write there: set another temporary folder in Slicer's settings.")
    return _("Look whether Slicer's temporary folder is there and has room, or set another one in Slicer's settings.")


def _trace() -> str:
    return traceback.format_exc()
