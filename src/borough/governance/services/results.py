"""What agents print and what they hand back."""

import json
from dataclasses import dataclass

from borough.core.errors import Conflict, Invalid, NotFound
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.lifecycle import Phase
from borough.governance.ports.confinement import AgentRunner
from borough.governance.ports.courses import Courses
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.endings import LIVE
from borough.governance.services.gate import Gate
from borough.governance.services.patience import Gone, nobody_leaves, patiently
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber

LONGEST_RESULT_BYTES = 1_048_576
MOST_LOG_BYTES = 262_144
_LINE_BYTES = 65_536
"""A line is kept whole up to this length, so that no secret is shown in two halves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """A part of what a run printed, cut between lines."""

    run_id: str
    text: str
    offset: int
    """Where it begins, in bytes of the whole."""
    next_offset: int
    is_over: bool
    """Whether the run prints no more."""


class ResultService:
    """Logs and results."""

    def __init__(
        self,
        *,
        gate: Gate,
        agents: Agents,
        courses: Courses,
        runner: AgentRunner,
        recorder: Recorder,
        scrubber: Scrubber,
    ) -> None:
        self._gate = gate
        self._agents = agents
        self._courses = courses
        self._runner = runner
        self._recorder = recorder
        self._scrubber = scrubber

    async def logs(
        self,
        asker: Asker,
        agent_id: AgentId,
        *,
        run_id: str | None = None,
        offset: int = 0,
        limit: int = MOST_LOG_BYTES,
        wait_s: float = 0,
        gone: Gone = nobody_leaves,
    ) -> LogPart:
        """Return what a run (the present one) printed from ``offset`` on, whole lines of it without secrets; where
        there is nothing yet, wait that long for it.

        Raises:
            NotFound: the agent (``agent_not_found``), or a log of that run (``log_not_found``).
            Forbidden: the caller may not see it.
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.INSPECT, agent)
        run = run_id or agent.run_id

        async def look() -> LogPart:
            return await self._part(await self._gate.agent(agent_id), run, offset, limit)

        return await patiently(look, lambda part: bool(part.text) or part.is_over, wait_s=wait_s, gone=gone)

    async def _part(self, agent: GovernedAgent, run_id: str, offset: int, limit: int) -> LogPart:
        course = await self._courses.get(agent.id)
        # Asked before the log is read: what is printed until the end is in it then.
        prints = agent.run_id == run_id and agent.status in LIVE and course.has_process
        back = min(offset, _LINE_BYTES)
        try:
            data = await self._runner.logs(agent.id, run_id, offset=offset - back, limit=back + limit + _LINE_BYTES)
        except NotFound:
            if agent.run_id != run_id:
                raise
            data = b""  # it printed nothing (so far), or has nothing that could
        begin = _line_start(data, back, is_all=offset == back)
        end = _line_end(data, begin, limit, whole=not prints)
        text = self._scrubber.text(data[begin:end].decode(errors="replace"))
        start = offset - back
        return LogPart(
            run_id=run_id,
            text=text,
            offset=start + begin,
            next_offset=start + max(end, begin),
            is_over=not prints and end >= len(data),
        )

    async def set_result(self, asker: Asker, agent_id: AgentId, result: object) -> None:
        """Keep what the present run hands back, once; handing back the same again changes nothing.

        Raises:
            NotFound: there is no such agent (``agent_not_found``).
            Forbidden: the caller is not the agent and may not speak for it.
            Invalid: it is too large (``result_too_large``).
            Conflict: the run handed back something else before (``result_exists``), or has ended
                (``agent_not_running``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.REPORT, agent)
        text = json.dumps(self._scrubber.value(result), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        if len(text.encode()) > LONGEST_RESULT_BYTES:
            raise Invalid(
                "the result is too large",
                code="result_too_large",
                reason=f"it may take {LONGEST_RESULT_BYTES} bytes",
                resolution="write the large part to a file of the workspace and hand back its path",
            )
        if agent.result == text:
            return
        if agent.result is not None:
            raise Conflict(
                "the run has handed back a result already",
                code="result_exists",
                resolution="hand back one result for each run",
            )
        if agent.status not in LIVE or agent.phase is Phase.INIT:
            raise Conflict("the agent does not run", code="agent_not_running", resolution="start it again")
        await self._recorder.event(asker, Action.RESULT_SET, detail=f"{len(text)} characters", target=agent)
        await self._agents.set_result(agent_id, run_id=agent.run_id, result=text)

    async def result(
        self, asker: Asker, agent_id: AgentId, *, wait_s: float = 0, gone: Gone = nobody_leaves
    ) -> tuple[GovernedAgent, object]:
        """Return the agent and what it handed back (``None``: nothing); where it has not yet, wait that long for it.

        Raises:
            NotFound: there is no such agent (``agent_not_found``).
            Forbidden: the caller may not see it.
        """
        await self._gate.admit(asker, Verb.INSPECT, await self._gate.agent(agent_id))

        async def look() -> tuple[GovernedAgent, bool]:
            agent = await self._gate.agent(agent_id)
            return agent, agent.result is not None or await self._is_over(agent)

        agent, _ = await patiently(look, lambda seen: seen[1], wait_s=wait_s, gone=gone)
        return agent, None if agent.result is None else json.loads(agent.result)

    async def _is_over(self, agent: GovernedAgent) -> bool:
        """Tell whether the agent has ended and is not started again."""
        return agent.status not in LIVE and (await self._courses.get(agent.id)).restart_at is None


def _line_start(data: bytes, at: int, *, is_all: bool) -> int:
    """Return where the line begins that ``at`` lies in; ``at`` itself where that is too far back, or at the end."""
    if at >= len(data):
        return len(data)
    begin = data.rfind(b"\n", 0, at) + 1
    return begin if begin > 0 or is_all else at


def _line_end(data: bytes, begin: int, limit: int, *, whole: bool) -> int:
    """Return where to cut: after the last line that fits, or in an endless one; ``whole``: its last line is done."""
    if whole and len(data) - begin <= limit:
        return len(data)
    fits = data.rfind(b"\n", begin, begin + limit) + 1
    if fits > begin:
        return fits
    first = data.find(b"\n", begin) + 1
    if first > begin:
        return first
    return len(data) if whole or len(data) - begin > _LINE_BYTES else begin
