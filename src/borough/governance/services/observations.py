"""What agents say they did and saw."""

from borough.core.clock import utc_now
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.observations import NewObservation, Observation, ObservationFilter, check_observation
from borough.governance.ports.records import Observations
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber


class ObservationService:
    """Appends to agents' chains of observations, and searches them."""

    def __init__(self, observations: Observations, gate: Gate, recorder: Recorder, scrubber: Scrubber) -> None:
        self._observations = observations
        self._gate = gate
        self._recorder = recorder
        self._scrubber = scrubber

    async def append(self, asker: Asker, agent_id: AgentId, new: NewObservation) -> Observation:
        """Keep what an agent says, free of secrets, bound to what it said before.

        Raises:
            NotFound: there is no such agent (``agent_not_found``).
            Invalid: it cannot be kept (``invalid_observation``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.APPEND_OBSERVATION, agent)
        clean = check_observation(self._without_secrets(new))
        id_ = asker.derived("observation", agent.id)
        async with self._recorder.act(
            asker,
            Action.OBSERVATION_APPEND,
            detail=clean.action[:200],
            target=agent,
            data={"observation_id": id_, "tags": list(clean.tags)},
        ) as act:
            kept = await self._observations.append(agent.id, clean, id=id_, at=utc_now())
            act.data["hash"] = kept.hash
        return kept

    async def find(self, asker: Asker, agent_id: AgentId, wanted: ObservationFilter) -> tuple[Observation, ...]:
        """Return the newest wanted observations of an agent, oldest first.

        Raises:
            NotFound: there is no such agent (``agent_not_found``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.READ_OBSERVATIONS, agent)
        return await self._observations.find(agent.id, wanted)

    def _without_secrets(self, new: NewObservation) -> NewObservation:
        metadata = self._scrubber.value(new.metadata) if new.metadata is not None else None
        return NewObservation(
            action=self._scrubber.text(new.action),
            result=self._scrubber.text(new.result),
            tags=tuple(self._scrubber.text(tag) for tag in new.tags),
            metadata=metadata if isinstance(metadata, dict) else None,
        )
