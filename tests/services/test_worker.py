"""The worker program against a real HTTP server: one process, one CLI, everything that can come in between."""

import ipaddress
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from borough.adapters import process
from borough.adapters.process import ATTEMPT, OWNER, Marker
from tests.services.townhall_double import State, Townhall

FIVE_KB = "Ünïcode first line\r\n" + "".join(
    f"line {n:04d} ß 'quotes' \"and\" $(never run) \\ \t tab\n" for n in range(110)
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def until(holds: Callable[[], object], *, within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "this did not come true"
        time.sleep(0.01)


@contextmanager
def working(town: Townhall, tmp_path: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    token = tmp_path / "token"
    token.write_text(town.state.token)
    argv = [
        sys.executable, "-m", "borough.worker", "--server", town.url, "--token-file", str(token), "--name", "alder",
        "--agent-id", town.state.agent_id, "--incarnation", "1", "--state-dir", str(tmp_path), *more,
    ]  # fmt: skip
    env = {
        **os.environ,
        OWNER: f"{town.state.agent_id}:1",
        "REDIS_URL": "redis://:secret@nowhere",
        "TT_API_KEY": "a-key",
    }
    with (tmp_path / "worker.log").open("ab") as log:
        worker = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=tmp_path)
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()
        process.reap(Marker(OWNER, f"{town.state.agent_id}:1"), grace_s=0)


def processes(town: Townhall) -> list[process.ProcessRef]:
    return process.owned(Marker(OWNER, f"{town.state.agent_id}:1"))


@pytest.mark.parametrize("mode", ["stdin", "file", "argument"])
def test_a_long_task_arrives_byte_for_byte(tmp_path: Path, mode: str) -> None:
    read = {
        "stdin": "sys.stdin.buffer.read()",
        "file": "open(sys.argv[1],'rb').read()",
        "argument": "os.fsencode(sys.argv[1])",
    }
    code = f"import os,sys; open('got','wb').write({read[mode]}); print('seen')"
    with Townhall(State(argv=python(code), input=mode)) as town, working(town, tmp_path):
        done = town.ended(town.give(FIVE_KB)["task_id"])
    assert len(FIVE_KB.encode()) > 5000
    assert FIVE_KB.encode() in (tmp_path / "got").read_bytes()
    assert (done["state"], done["result"]) == ("completed", "seen\n")


def test_an_argument_beyond_the_kernels_limit_goes_by_file(tmp_path: Path) -> None:
    name = "re.search(r'whole file (\\S+) first', sys.argv[1])[1]"
    code = f"import sys,re; print(len(open({name}).read()) > 200_000)"
    with Townhall(State(argv=python(code), input="argument")) as town, working(town, tmp_path):
        done = town.ended(town.give("x" * 200_000)["task_id"])
    assert done["result"] == "True\n"


def test_the_cli_knows_who_it_is_and_inherits_no_secret(tmp_path: Path) -> None:
    code = (
        "import os,json,stat; e=os.environ; f=e['TINYTOWN_TOKEN_FILE'];"
        "print(json.dumps({**e, 'token': open(f).read(), 'mode': oct(stat.S_IMODE(os.stat(f).st_mode)),"
        "'group': os.getpgid(0)==os.getpid()}))"
    )
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path):
        given = town.give("who are you?")
        told = json.loads(town.ended(given["task_id"])["result"])
        assert told["TINYTOWN_SERVER"] == town.url
        assert told["TINYTOWN_AGENT_ID"] == town.state.agent_id
    assert told["TINYTOWN_AGENT_NAME"] == "alder"
    assert told["TINYTOWN_TASK_ID"] == given["task_id"]
    assert told["FROM_PRESET"] == "yes"
    assert (told["token"], told["mode"], told["group"]) == (f"attempt-token:{given['task_id']}:1", "0o600", True)
    assert not {"REDIS_URL", "TT_API_KEY"} & told.keys()
    assert "BOROUGH_TOKEN_FILE" not in told


def test_a_non_zero_exit_fails_the_attempt_with_the_end_of_the_output(tmp_path: Path) -> None:
    code = "import sys; print('x' * 10_000); print('what went wrong', file=sys.stderr); sys.exit(7)"
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path):
        failed = town.ended(town.give("fail")["task_id"])
    assert failed["state"] == "delayed"
    assert failed["last_error"].startswith("exit code 7\n")
    assert failed["last_error"].endswith("what went wrong")
    assert len(failed["last_error"]) <= 4200


def test_a_signal_is_told_by_name(tmp_path: Path) -> None:
    code = "import os,signal; os.kill(os.getpid(), signal.SIGSEGV)"
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path):
        failed = town.ended(town.give("crash")["task_id"])
    assert failed["last_error"] == "the agent CLI was ended by signal SIGSEGV"


def test_a_missing_program_takes_no_task_and_says_why(tmp_path: Path) -> None:
    with Townhall(State(argv=["no-such-agent-cli"])) as town, working(town, tmp_path) as worker:
        given = town.give("anything")
        assert worker.wait(15) == 1
        (left,) = town.state.leaves
        assert left["failed"] is True
        assert "'no-such-agent-cli'" in left["reason"]
        assert given["state"] == "assigned"


def test_ten_megabytes_of_output_are_logged_whole_and_the_result_keeps_the_end(tmp_path: Path) -> None:
    code = "import sys\nfor n in range(200_000): sys.stdout.write(f'{n:049d}é'[:49]+chr(10))\nsys.stdout.write('end é')"
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path):
        given = town.give("print much")
        done = town.ended(given["task_id"])
        log = bytes(town.state.logs[given["task_id"], 1])
    assert log == "".join(f"{n:049d}\n" for n in range(200_000)).encode() + "end é".encode()
    assert len(done["result"].encode()) <= 1_048_576
    assert len(done["result"].encode()) > 1_040_000
    assert done["result"].startswith("[the first ")
    assert done["result"].endswith("end é")


def test_a_result_that_the_server_finds_too_large_is_shortened(tmp_path: Path) -> None:
    with Townhall(State(argv=python("print('y' * 600_000)"), result_limit=300_000)) as town, working(town, tmp_path):
        done = town.ended(town.give("print")["task_id"])
    assert 200_000 < len(done["result"]) <= 300_000


def test_a_timeout_ends_a_grandchild_that_ignores_term(tmp_path: Path) -> None:
    grandchild = (
        "import os,signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.setsid()\n"
        "print('deaf', flush=True)\ntime.sleep(600)"
    )
    code = f"import subprocess,sys,time\nsubprocess.Popen([sys.executable,'-c',{grandchild!r}]); time.sleep(600)"
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path):
        given = town.give("hang", timeout_secs=1)
        town.wait_for(lambda state: b"deaf" in state.logs.get((given["task_id"], 1), b""))
        failed = town.ended(given["task_id"])
        assert process.owned(Marker(ATTEMPT, f"{given['task_id']}:1")) == []
    assert failed["last_error"] == "timeout: the agent CLI was ended after 1 s\ndeaf"


def test_what_dropped_its_environment_and_session_ends_with_the_attempt(tmp_path: Path) -> None:
    escaped = "import os,time; os.fork() and os._exit(0); open('escaped','w').write(str(os.getpid())); time.sleep(600)"
    code = (
        f"import subprocess,sys,os,time\nsubprocess.Popen([sys.executable,'-c',{escaped!r}],env={{}},"
        "start_new_session=True,stdout=-3,stderr=-3).wait()\n"
        "while not (os.path.exists('escaped') and open('escaped').read()): time.sleep(0.01)"
    )
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path):
        assert town.ended(town.give("escape")["task_id"])["state"] == "completed"
        assert process.identify(int((tmp_path / "escaped").read_text())) is None


def test_the_heartbeat_goes_on_while_the_cli_spins(tmp_path: Path) -> None:
    code = "import time\nend=time.monotonic()+1.5\nwhile time.monotonic()<end: 1+1"
    with Townhall(State(argv=python(code), heartbeat_ms=200)) as town, working(town, tmp_path):
        given = town.give("spin")
        town.ended(given["task_id"])
        during = [at for at, held in town.state.beats if held == given["task_id"]]
    assert len(during) >= 5
    assert max(b - a for a, b in itertools.pairwise(during)) < 1.0


def test_an_idle_worker_asks_about_twice_an_interval(tmp_path: Path) -> None:
    with Townhall(State(argv=["true"], heartbeat_ms=500)) as town, working(town, tmp_path):
        town.wait_for(lambda state: len(state.beats) >= 2)
        before, began = town.state.requests, time.monotonic()
        town.wait_for(lambda state: len(state.beats) >= 6)
        assert town.state.requests - before <= 6 + (time.monotonic() - began)


def test_pause_freezes_the_cli_and_resume_continues_it(tmp_path: Path) -> None:
    code = "import time\nfor n in range(400):\n print(n, flush=True); time.sleep(0.01)"
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path):
        given = town.give("count")
        marker = Marker(ATTEMPT, f"{given['task_id']}:1")
        town.wait_for(lambda state: state.logs.get((given["task_id"], 1)))
        town.say("pause")
        until(lambda: all(stat_of(ref.pid) == "T" for ref in process.owned(marker)))
        assert process.owned(marker)
        town.say("run")
        done = town.ended(given["task_id"])
    assert done["result"].split() == [str(n) for n in range(400)]


def stat_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_dropped_task_is_ended_and_the_next_one_taken(tmp_path: Path) -> None:
    code = (
        "import sys,time\nif 'please hang' in sys.stdin.read():\n print('on', flush=True); time.sleep(600)\n"
        "print('next')"
    )
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path):
        first = town.give("please hang")
        town.wait_for(lambda state: state.logs.get((first["task_id"], 1)))
        second = town.give("please go on")
        town.cancel(first["task_id"])
        assert town.ended(second["task_id"])["result"] == "next\n"
        assert process.owned(Marker(ATTEMPT, f"{first['task_id']}:1")) == []
        assert [task_id for task_id, _, _ in town.state.reports] == [second["task_id"]]


@pytest.mark.parametrize("how", ["directive", "fence"])
def test_stop_ends_cli_and_worker(tmp_path: Path, how: str) -> None:
    code = "import time; print('on', flush=True); time.sleep(600)"
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path) as worker:
        given = town.give("hang")
        town.wait_for(lambda state: state.logs.get((given["task_id"], 1)))
        if how == "directive":
            town.say("stop")
        else:
            with town.state.changed:
                town.state.fenced = True
                town.state.changed.notify_all()
        assert worker.wait(15) == 0
        assert processes(town) == []
        assert town.state.reports == []


def test_term_gives_the_task_back_and_leaves(tmp_path: Path) -> None:
    code = "import time; print('on', flush=True); time.sleep(600)"
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path) as worker:
        given = town.give("hang")
        town.wait_for(lambda state: state.logs.get((given["task_id"], 1)))
        worker.terminate()
        assert worker.wait(15) == 0
        assert [how for _, how, _ in town.state.reports] == ["release"]
        assert [left["reason"] for left in town.state.leaves] == ["the worker got SIGTERM"]
        assert processes(town) == []


def test_term_ends_an_idle_worker_at_once(tmp_path: Path) -> None:
    with Townhall(State(argv=["true"])) as town, working(town, tmp_path) as worker:
        town.wait_for(lambda state: state.beats)
        worker.terminate()
        assert worker.wait(10) == 0
        assert len(town.state.leaves) == 1


def test_sigkill_of_the_worker_ends_what_it_had_started(tmp_path: Path) -> None:
    code = (
        "import os,time\nif os.fork()==0:\n os.setsid()\n if os.fork(): os._exit(0)\n print('off', flush=True)\n"
        "time.sleep(600)"
    )
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path) as worker:
        given = town.give("hang")
        town.wait_for(lambda state: b"off" in state.logs.get((given["task_id"], 1), b""))
        assert len(processes(town)) >= 3
        worker.kill()
        worker.wait()
        until(lambda: processes(town) == [])


def test_a_server_that_is_away_for_a_while_loses_nothing(tmp_path: Path) -> None:
    code = "import time\nfor n in range(150):\n print(n, flush=True); time.sleep(0.01)"
    with Townhall(State(argv=python(code), heartbeat_ms=200)) as town, working(town, tmp_path):
        given = town.give("count")
        town.wait_for(lambda state: state.logs.get((given["task_id"], 1)))
        town.stop()
        marker = Marker(ATTEMPT, f"{given['task_id']}:1")
        until(lambda: process.owned(marker) == [])  # it finished meanwhile
        town.start()
        done = town.ended(given["task_id"])
        again = town.give("once more")
        town.ended(again["task_id"])
    wanted = "".join(f"{n}\n" for n in range(150))
    assert done["result"] == wanted
    assert bytes(town.state.logs[given["task_id"], 1]) == wanted.encode()
    assert [how for _, how, _ in town.state.reports] == ["complete", "complete"]


def test_a_server_that_stays_away_ends_the_cli_and_the_worker(tmp_path: Path) -> None:
    code = "import time; print('on', flush=True); time.sleep(600)"
    town = Townhall(State(argv=python(code), heartbeat_ms=200))
    with town, working(town, tmp_path, "--give-up-s", "1") as worker:
        given = town.give("hang")
        town.wait_for(lambda state: state.logs.get((given["task_id"], 1)))
        town.stop()
        assert worker.wait(20) == 3
        assert processes(town) == []


def test_a_cli_that_completes_by_itself_may_finish_its_words(tmp_path: Path) -> None:
    code = (
        "import json,os,time,urllib.request as u; e=os.environ\n"
        "body=json.dumps({'result':'my own','epoch':1}).encode()\n"
        "ask=u.Request(e['TINYTOWN_SERVER']+'/v1/tasks/'+e['TINYTOWN_TASK_ID']+'/complete',body,"
        "{'Authorization':'Bearer '+open(e['TINYTOWN_TOKEN_FILE']).read()})\n"
        "u.urlopen(ask).close(); time.sleep(1.2); print('last words', flush=True)"
    )
    with Townhall(State(argv=python(code), heartbeat_ms=200)) as town, working(town, tmp_path):
        given = town.give("do it yourself")
        town.wait_for(lambda state: b"last words" in state.logs.get((given["task_id"], 1), b""))
        town.ended(town.give("and again")["task_id"])
        assert given["result"] == "my own"
        assert [how for task_id, how, _ in town.state.reports if task_id == given["task_id"]] == ["complete"]


def test_reprompt_reminds_twice_and_then_fails(tmp_path: Path) -> None:
    code = "import sys; open('prompts','a').write(sys.stdin.read() + chr(0)); print('run')"
    state = State(argv=python(code), on_exit_zero="reprompt")
    with Townhall(state) as town, working(town, tmp_path):
        failed = town.ended(town.give("report, please")["task_id"])
    first, second, third, rest = (tmp_path / "prompts").read_text().split("\0")
    assert rest == ""
    assert "reminder" not in first
    assert "This is reminder 1 of 2" in second
    assert "This is reminder 2 of 2" in third
    assert all("report, please" in prompt for prompt in (first, second, third))
    assert failed["last_error"] == "the agent CLI ended 3 times with exit code 0 without reporting"


def test_each_lease_has_a_log_of_its_own(tmp_path: Path) -> None:
    with Townhall(State(argv=python("print('fresh words')"))) as town:
        given = town.give("again", epoch=4)
        town.state.logs[given["task_id"], 4] = bytearray(b"old words\n")
        with working(town, tmp_path):
            town.ended(given["task_id"])
    assert town.state.logs[given["task_id"], 4] == b"old words\n"
    assert town.state.logs[given["task_id"], 5] == b"fresh words\n"


def test_an_idle_worker_drains_and_leaves(tmp_path: Path) -> None:
    state = State(argv=["true"], idle_timeout_secs=1, refuse_leaves=1)
    with Townhall(state) as town, working(town, tmp_path) as worker:
        assert worker.wait(20) == 0
        assert [left["reason"] for left in town.state.leaves] == ["idle timeout"]


def test_drain_lets_the_task_finish_and_then_leaves_at_once(tmp_path: Path) -> None:
    code = "import time; print('on', flush=True); time.sleep(0.5); print('off')"
    with Townhall(State(argv=python(code))) as town, working(town, tmp_path) as worker:
        given = town.give("finish me")
        town.wait_for(lambda state: state.logs.get((given["task_id"], 1)))
        town.say("drain")
        assert worker.wait(15) == 0
        assert given["result"] == "on\noff\n"
        assert [left["reason"] for left in town.state.leaves] == ["drained"]


def test_a_worker_from_elsewhere_registers_first(tmp_path: Path) -> None:
    with Townhall(State(argv=["cat"])) as town:
        token = tmp_path / "operator"
        token.write_text("operator-token\n")
        env = {
            **os.environ, "BOROUGH_SERVER": town.url, "BOROUGH_TOKEN_FILE": str(token),
            "TINYTOWN_AGENT_NAME": "birch", "TINYTOWN_AGENT_ROLE": "backend",
        }  # fmt: skip
        worker = subprocess.Popen([sys.executable, "-m", "borough.worker"], env=env, stderr=subprocess.DEVNULL)
        try:
            done = town.ended(town.give("hello")["task_id"])
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(10) == 0
        finally:
            worker.kill()
            worker.wait()
        (registered,) = town.state.registrations
    assert (registered["name"], registered["role_id"]) == ("birch", "backend")
    assert registered["key"]
    assert "hello" in done["result"]


def test_the_example_agent_serves_a_task_whole(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/one.py").write_text("# TODO: mend\n")
    with Townhall(State(argv=[sys.executable, "-m", "borough.examples.reader"])) as town, working(town, tmp_path):
        given = town.give("Make a TODO inventory of `pack`.")
        done = town.ended(given["task_id"])
        lost = town.ended(town.give("Sing.")["task_id"])
    assert done["result"].endswith("1 open notes in comments of 1 modules.\n")
    report = tmp_path / f"reports/todo-inventory-pack-{given['task_id'][:8]}.md"
    assert "| pack/one.py:1 | TODO: mend |" in report.read_text()
    assert lost["last_error"].startswith("exit code 1\nreader: cannot do 'Sing.'")


def test_tls_with_a_certificate_authority_of_ones_own(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    state = State(argv=["cat"])
    with Townhall(state, tls=tls) as town, working(town, tmp_path, "--ca-file", str(certificate)) as worker:
        assert "over TLS" in town.ended(town.give("over TLS")["task_id"])["result"]
        worker.terminate()
        assert worker.wait(10) == 0
        assert len(state.leaves) == 1
    with Townhall(State(argv=["cat"]), tls=tls) as town, working(town, tmp_path, "--give-up-s", "0.2") as untrusting:
        assert untrusting.wait(15) == 3
        assert town.state.requests == 0


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "double")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_a_refused_token_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    with Townhall(State(argv=["true"])) as town:
        (tmp_path / "wrong").write_text("wrong")
        argv = [sys.executable, "-m", "borough.worker", "--server", town.url, "--token-file", str(tmp_path / "wrong")]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 4
    assert "wrong" not in ended.stderr
    assert "Traceback" not in ended.stderr
