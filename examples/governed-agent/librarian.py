"""An agent under governance: it plans, acts with tools on real files, observes, and is refused where it may not go.

Everything it does is judged by its manifest and written into the ledger. Three things happen on purpose: it reads what
it may, it is refused what it may not, and it asks a human before it publishes.
"""

import json

from borough.agent import Agent, PlanStep, ToolFailed

NOTES = "/workspace/notes"
DIARY = "/workspace/private/diary.txt"
INDEX = "/workspace/out/index.json"
PUBLISHED = "/workspace/published/index.json"


def main() -> None:
    """Index the notes, try what is forbidden, and publish once somebody has agreed."""
    with Agent.from_env() as agent:
        agent.transition("plan")
        agent.plan(
            [
                PlanStep("list the notes", tool="fs.list"),
                PlanStep("read each", tool="fs.read"),
                PlanStep("write the index", tool="fs.write"),
                PlanStep("publish it, if somebody agrees", tool="fs.write"),
            ]
        )
        agent.transition("act")
        index = read_notes(agent)
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        agent.invoke_tool("fs.write", {"path": INDEX, "content": text})
        refused = try_the_diary(agent)
        agent.invoke_tool("fs.write", {"path": PUBLISHED, "content": text})  # waits here for a human
        agent.transition("observe")
        agent.observe("index", f"{len(index)} notes indexed and published", tags=["index"])
        agent.memory_set("librarian/last", {"notes": sorted(index)})
        agent.finish({"notes": len(index), "words": sum(index.values()), "refused": refused})


def read_notes(agent: Agent) -> dict[str, int]:
    """Return how many words each note has."""
    words: dict[str, int] = {}
    for entry in agent.invoke_tool("fs.list", {"path": NOTES}):
        if not entry["is_dir"]:
            note = agent.invoke_tool("fs.read", {"path": entry["path"]})
            words[entry["name"]] = len(note["content"].split())
    return words


def try_the_diary(agent: Agent) -> str:
    """Try to read what no capability names; return why that was refused."""
    try:
        agent.invoke_tool("fs.read", {"path": DIARY})
    except ToolFailed as refusal:
        agent.observe("refused", str(refusal), tags=["refusal"])
        return str(refusal)
    raise SystemExit("the diary could be read: governance does not hold")


if __name__ == "__main__":
    main()
