"""Language models: what they cost, how they rank, and which one a call gets when it names none."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from borough.governance.decisions import Denied
from borough.governance.manifests import ModelPolicy

TOKENS_PRICED = 1_000_000
"""Prices are for so many tokens."""
FALLBACK_MODEL = "anthropic/claude-haiku-4-5"
FALLBACK_EMBEDDER = "openai/text-embedding-3-small"
TYPICAL_INPUT_TOKENS = 2_000
TYPICAL_OUTPUT_TOKENS = 1_000
"""A model is affordable when the budget is enough for a call of this size."""
MODEL_RULE = "spec.model_policy"


class Purpose(StrEnum):
    """What a model is for."""

    CHAT = "chat"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One entry of the registry. Ranks are compared with each other only; 1 is the best."""

    id: str
    input_micros: int
    """Millionths of the unit of money for a million tokens."""
    output_micros: int
    speed_rank: int
    capability_rank: int
    purpose: Purpose = Purpose.CHAT


def _chat(id_: str, input_micros: int, output_micros: int, speed_rank: int, capability_rank: int) -> Model:
    return Model(
        id=id_,
        input_micros=input_micros,
        output_micros=output_micros,
        speed_rank=speed_rank,
        capability_rank=capability_rank,
    )


def _embedder(id_: str, input_micros: int, capability_rank: int) -> Model:
    return Model(
        id=id_,
        input_micros=input_micros,
        output_micros=0,
        speed_rank=capability_rank,
        capability_rank=capability_rank,
        purpose=Purpose.EMBEDDING,
    )


BUILT_IN: tuple[Model, ...] = (
    _chat("anthropic/claude-opus-4.1", 15_000_000, 75_000_000, 9, 1),
    _chat("anthropic/claude-sonnet-4.5", 3_000_000, 15_000_000, 6, 2),
    _chat("openai/gpt-5", 1_250_000, 10_000_000, 8, 3),
    _chat("google/gemini-2.5-pro", 1_250_000, 10_000_000, 7, 4),
    _chat(FALLBACK_MODEL, 1_000_000, 5_000_000, 3, 5),
    _chat("openai/gpt-5-mini", 250_000, 2_000_000, 5, 6),
    _chat("google/gemini-2.5-flash", 300_000, 2_500_000, 2, 7),
    _chat("openai/gpt-4o-mini", 150_000, 600_000, 4, 8),
    _chat("google/gemini-2.5-flash-lite", 100_000, 400_000, 1, 9),
    _embedder("openai/text-embedding-3-large", 130_000, 1),
    _embedder(FALLBACK_EMBEDDER, 20_000, 2),
)
"""Prices as providers publish them; a file replaces them where they differ."""


def find(registry: Sequence[Model], model: str) -> Model | None:
    """Return the entry of ``model``, if the registry has it."""
    return next((entry for entry in registry if entry.id == model), None)


def price_micros(model: Model, *, input_tokens: int, output_tokens: int) -> int:
    """Return what so many tokens cost, rounded up."""
    total = model.input_micros * input_tokens + model.output_micros * output_tokens
    return -(-total // TOKENS_PRICED)


def choose(
    policy: ModelPolicy,
    *,
    requested: str | None,
    default: str | None,
    remaining_micros: int | None,
    registry: Sequence[Model],
    purpose: Purpose = Purpose.CHAT,
) -> str | Denied:
    """Return the model that a call gets, or why it gets none.

    A model that the call names always wins. Then the policy chooses within what is left of the budget (``None``: no
    limit); a policy that chooses none leaves it to ``default``, and that to the fallback.
    """
    if requested:
        return requested
    fitting = [entry for entry in registry if entry.purpose is purpose]
    if policy is ModelPolicy.EXPLICIT or not fitting:
        fallback = FALLBACK_MODEL if purpose is Purpose.CHAT else FALLBACK_EMBEDDER
        return (default if purpose is Purpose.CHAT else None) or fallback
    affordable = [
        entry for entry in fitting if remaining_micros is None or typical_cost_micros(entry) <= remaining_micros
    ]
    if not affordable:
        return Denied(
            rule=MODEL_RULE,
            code="budget_exceeded",
            reason=f"no model fits into what is left of the budget ({remaining_micros} millionths)",
            resolution="raise the agent's budget, or name a cheaper model in the call",
        )
    return min(affordable, key=lambda entry: _order(policy, entry)).id


def typical_cost_micros(model: Model) -> int:
    """Return what a call of ordinary size costs; it serves as the estimate before the call is made."""
    return price_micros(model, input_tokens=TYPICAL_INPUT_TOKENS, output_tokens=TYPICAL_OUTPUT_TOKENS)


def _order(policy: ModelPolicy, entry: Model) -> tuple[int, int, str]:
    """Return what to sort by; among equals the cheaper one, then the first by name: never chance."""
    cost = typical_cost_micros(entry)
    first = {
        ModelPolicy.CHEAPEST: cost,
        ModelPolicy.FASTEST: entry.speed_rank,
        ModelPolicy.MOST_CAPABLE: entry.capability_rank,
        ModelPolicy.EXPLICIT: 0,
    }
    return first[policy], cost, entry.id
