"""``tt``: the command line of town and fleet. Only the table of commands is here; each is imported when called."""

import sys
from typing import Final

from borough.cli.commands import LazyGroup
from borough.cli.errors import run

_TOWN: Final = "borough.cli.tt_town"
_SERVER: Final = "borough.cli.tt_server"
_AGENTS: Final = "borough.cli.tt_agents"
_CARE: Final = "borough.cli.tt_care"
_WORK: Final = "borough.cli.tt_work"
_TASKS: Final = "borough.cli.tt_tasks"
_MAIL: Final = "borough.cli.tt_mail"
_EVENTS: Final = "borough.cli.tt_events"
_AUTH: Final = "borough.cli.tt_auth"
_PLAN: Final = "borough.cli.tt_plan"
_BACKUP: Final = "borough.cli.tt_backup"
_VMS: Final = "borough.cli.tt_vms"

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": (f"{_TOWN}:init", "Make a town in this folder."),
    "start": (f"{_SERVER}:start", "Start the town's server in the background."),
    "stop": (f"{_SERVER}:stop", "Stop every agent, and with --server the server too."),
    "status": (f"{_SERVER}:status", "Show the town, its agents and its work; and the fleet."),
    "towns": (f"{_TOWN}:towns", "List the towns of this user."),
    "config": (f"{_TOWN}:config", "Show or change this user's settings; or save the fleet controller's address."),
    "doctor": ("borough.cli.doctor:doctor", "Check what works here, and say what mends the rest."),
    "spawn": (f"{_AGENTS}:spawn", "Start an agent."),
    "list": (f"{_AGENTS}:list_agents", "List the agents."),
    "kill": (f"{_AGENTS}:kill", "Stop an agent at once."),
    "interrupt": (f"{_AGENTS}:interrupt", "Pause an agent, its running work too."),
    "resume": (f"{_AGENTS}:resume", "Let a paused agent go on."),
    "close": (f"{_AGENTS}:close", "Let an agent finish what it has, then stop."),
    "wait": (f"{_AGENTS}:wait", "Wait until an agent has stopped."),
    "restart": (f"{_AGENTS}:restart", "Start an agent that has ended again."),
    "explain": (f"{_AGENTS}:explain", "Say why an agent is as it is, and what comes next."),
    "prune": (f"{_CARE}:prune", "Remove agents that have ended."),
    "recover": (f"{_CARE}:recover", "Find agents whose process is gone."),
    "reclaim": (f"{_CARE}:reclaim", "Move the work of agents that have ended."),
    "assign": (f"{_WORK}:assign", "Give a task to an agent."),
    "backlog": (f"{_WORK}:backlog", "Work for whichever agent is free: add, list, claim, assign-all, remove."),
    "task": (f"{_TASKS}:task", "Look at tasks and end them: show, list, current, complete, fail, cancel, retry …"),
    "dead": (f"{_WORK}:dead", "Tasks that ran out of attempts: list, replay."),
    "send": (f"{_MAIL}:send", "Send a message to an agent."),
    "inbox": (f"{_MAIL}:inbox", "Look into an inbox."),
    "history": (f"{_EVENTS}:history", "Show what happened last."),
    "events": (f"{_EVENTS}:events", "Show events, and follow them as they happen."),
    "conductor": (f"{_PLAN}:conductor", "Start the AI CLI that leads the town."),
    "plan": (f"{_PLAN}:plan", "Show or begin the plan in tasks.toml."),
    "sync": (f"{_PLAN}:sync", "Bring the plan into the town (push), or the town's news into the plan (pull)."),
    "host": ("borough.cli.tt_hosts:host", "The hosts of the fleet: add, list, show, cordon, drain, remove …"),
    "env": ("borough.cli.tt_envs:env", "Environments of machines: create, clone, list, show, stop, start, extend …"),
    "vm": (f"{_VMS}:vm", "Single machines: list, show, stop, start, pause, console, snapshots."),
    "image": ("borough.cli.tt_images:image", "Images: list them, see the recipes, make one, bring one to a host."),
    "exec": (f"{_VMS}:execute", "Run a command inside a machine; its exit code becomes this one's."),
    "logs": (f"{_VMS}:logs", "Print what a machine printed on its console."),
    "cp": ("borough.cli.tt_copy:cp", "Copy a file or folder into a machine, or out of it."),
    "ssh": (f"{_VMS}:ssh", "Log into a machine with ssh, through its published port 22."),
    "deploy": ("borough.cli.tt_deploy:deploy", "Run controller and host daemons as services: agent, ctl, all, dist."),
    "auth": (f"{_AUTH}:auth", "Keys for the REST API: gen-key, keys."),
    "save": (f"{_BACKUP}:save", "Back the town up into a file."),
    "restore": (f"{_BACKUP}:restore", "Bring a town back from a file."),
    "reset": (f"{_BACKUP}:reset", "Delete all work, or only the agents."),
    "migrate": (f"{_BACKUP}:migrate", "Bring the unfinished tasks of a town on another Redis server into this one."),
    "bootstrap": (f"{_TOWN}:bootstrap", "Nothing is needed: the store comes with the package."),
    "completion": (f"{_TOWN}:completion", "Print the completion script for a shell."),
}
SECTIONS: Final = {
    "The town": ("init", "start", "stop", "status", "towns", "config", "doctor"),
    "Agents": (
        *("spawn", "list", "kill", "interrupt", "resume", "close", "wait", "restart", "explain"),
        *("prune", "recover", "reclaim"),
    ),
    "Work": ("assign", "backlog", "task", "dead", "send", "inbox", "history", "events"),
    "The fleet": ("host", "env", "vm", "image", "exec", "logs", "cp", "ssh", "deploy"),
    "Planning": ("conductor", "plan", "sync"),
    "Upkeep": ("auth", "save", "restore", "reset", "migrate", "bootstrap", "completion"),
}

program = LazyGroup(
    "tt",
    help="Give agents work, and see what becomes of it.",
    example='tt init --name mytown\ntt spawn ada --role backend\ntt assign ada "Read src and list its TODOs"',
    table=COMMANDS,
    sections=SECTIONS,
)


def main() -> None:
    """Run ``tt``."""
    sys.exit(run(program, "tt"))


if __name__ == "__main__":
    main()
