"""Work that Prefect shows: the work itself counts, and what Prefect fails at does not stop it."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from prefect import Flow, State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events.clients import PrefectCloudEventsClient, PrefectEventsClient
from prefect.events.worker import EventsWorker, emit_events_to_cloud
from prefect.logging.handlers import APILogHandler
from prefect.settings import get_current_settings
from prefect.tasks import exponential_backoff

from cir_core.errors import PreflightError, is_transient
from flows import LAYERS
from flows.engines.page_progress import SERVER_ERRORS, told_on_page
from flows.engines.prefect_api import Api, wait_for_answer
from tasks.progress import telling_by

PATIENCE = 20.0
"""Seconds: a server that is started again takes 15."""

RECONNECTIONS = 1
"""For an event that Prefect's server does not take; what is not sent goes with the next that is. By
Prefect's own ten, with pauses, each event waits 8 s for a server that is lost, also those of which
the process waits at its exit: a minute and more."""

MESSAGE = 160
"""Characters: Prefect repeats the whole event, which takes a screen."""

RETRIES = 4
"""Of a task whose error may pass: the fifth time it is no passing one."""

FIRST_PAUSE = 15.0
"""Seconds; each pause is twice the one before, together 3.75 minutes: a file server that is started
again takes two or three."""

LOSS_LOGGERS = ("prefect.events.clients", "prefect._internal.concurrency")

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def observe(
    as_flow: Callable[[Callable[..., Result]], Flow[..., Result]],
    work: Callable[..., Result],
    parameters: dict[str, Any],
) -> Result:
    """Do the work as a flow, here and now; returns and raises what the work does.

    When Prefect's server is lost, the work goes on: a warning tells that its pages are not whole.
    Raises PreflightError when Prefect does not let the work begin.
    """
    done: Future[Result] = Future()

    @wraps(work)
    def kept(**values: Any) -> Result:
        try:
            result = work(**values)
        except BaseException as error:
            done.set_exception(error)
            raise
        done.set_result(result)
        return result

    logging.raiseExceptions = False  # else Prefect tells of every batch of log lines that it loses
    for name in LOSS_LOGGERS:
        logging.getLogger(name).addFilter(_ONE_LINE)
    client = PrefectCloudEventsClient if emit_events_to_cloud() else PrefectEventsClient
    EventsWorker.set_client_override(client, reconnection_attempts=RECONNECTIONS)
    try:
        return as_flow(kept)(**parameters)
    except Exception as error:
        if not done.done():
            raise _refusal(error) from error
        if error is done.exception():
            raise
        _log.warning("Prefect could not note how the run ended: %s", _first_line(error))
    return done.result()


def as_task(work: Callable[[], Result], *, name: str, run_name: str | None = None) -> Result:
    """Do the work as a task of the surrounding flow; returns and raises what it does.

    Where its error ``is_transient``, it is done again after a pause, ``RETRIES`` times at most:
    what is finished is found and kept. A task within a task, as a training's validation, is tried
    again by both.
    """

    @task(
        name=name,
        task_run_name=run_name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(FIRST_PAUSE),
        retry_condition_fn=_may_pass,
    )
    def observed() -> Result:
        with telling_by(told_on_page):
            return work()

    return observed()


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Of a failure that is still in this process: its data are the exception."""
    return isinstance(state.data, BaseException) and is_transient(state.data)


def attempt(show: Callable[[], object]) -> None:
    """Have Prefect show something, if its server is there: else a warning, and from then on no
    more patience with it."""
    url = get_current_settings().api.url
    fault = wait_for_answer(url, PATIENCE) if url else ""
    if not fault:
        try:
            show()
        except SERVER_ERRORS as error:
            fault = _first_line(error)
            _log.warning("Prefect cannot show this (%s): going on without its pages", fault)
    else:
        _log.warning("Prefect's server is lost (%s): going on without it", fault)
    if fault:
        get_current_settings().client.max_retries = 0


@contextmanager
def logs_shown() -> Iterator[None]:
    """What our loggers tell goes to the flow run's page too, and to its worker's log."""
    context = FlowRunContext.get()
    handler = _PageHandler(context.flow_run.id if context and context.flow_run else None)
    loggers = [logging.getLogger(layer) for layer in LAYERS]
    for logger in loggers:
        if not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _PageHandler(APILogHandler):
    """Prefect's, which asks the thread for its run, also for threads that the run started."""

    def __init__(self, flow_run_id: Any) -> None:
        super().__init__()
        self._flow_run_id = flow_run_id

    def emit(self, record: logging.LogRecord) -> None:
        if FlowRunContext.get() is None and TaskRunContext.get() is None:
            record.flow_run_id = self._flow_run_id
        super().emit(record)


class _OneLine(logging.Filter):
    """Of Prefect's pages about events that it cannot send, one line about the first."""

    told = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        told, self.told = self.told, True
        reason = record.getMessage()[:MESSAGE]
        record.msg = f"Prefect's server takes no events, its pages will lack some: {reason}"
        record.args, record.exc_info = (), None
        return not told


_ONE_LINE = _OneLine()


def _refusal(error: Exception) -> PreflightError:
    return PreflightError(
        "Prefect does not start the flow run",
        item=str(Api(str(get_current_settings().api.url), "as Prefect reads it")),
        cause=_first_line(error),
        remedy="correct what it says; --engine in-process works without Prefect",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
