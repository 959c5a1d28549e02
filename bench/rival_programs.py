"""What runs in the rivals' own environment: ``enqueue COUNT``, ``work``, ``watch COUNT``.

``RIVAL`` names the queue, ``RIVAL_REDIS`` the server, ``RIVAL_AT_ONCE`` how many jobs run at a time. Prints one number.
"""

import asyncio
import os
import sys
import time
from typing import Any

NAME = os.environ["RIVAL"]
URL = os.environ["RIVAL_REDIS"]
AT_ONCE = int(os.environ["RIVAL_AT_ONCE"])
WITHIN_S = 150.0


async def arq_job(_: dict[str, Any], number: int) -> int:
    return number


async def arq_enqueue(count: int) -> float:
    from arq import create_pool
    from arq.connections import RedisSettings

    pool = await create_pool(RedisSettings(unix_socket_path=URL.removeprefix("unix://")))
    began = time.perf_counter()
    for number in range(count):
        await pool.enqueue_job("arq_job", number)
    return time.perf_counter() - began


def arq_work() -> None:
    from arq.connections import RedisSettings
    from arq.worker import Worker

    settings = RedisSettings(unix_socket_path=URL.removeprefix("unix://"))
    # Its default of one poll each half second would be all that is measured.
    Worker(functions=[arq_job], redis_settings=settings, max_jobs=AT_ONCE, poll_delay=0.005).run()


def job(number: int) -> int:
    return number


def celery_app() -> Any:
    from celery import Celery

    app = Celery("rival", broker=f"redis+socket://{URL.removeprefix('unix://')}")
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, task_ignore_result=True)
    app.task(name="job")(job)
    return app


def celery_enqueue(count: int) -> float:
    app = celery_app()
    began = time.perf_counter()
    for number in range(count):
        app.send_task("job", args=[number])
    return time.perf_counter() - began


def celery_work() -> None:
    celery_app().worker_main(["worker", "--pool", "threads", "--concurrency", str(AT_ONCE), "--loglevel", "WARNING"])


def dramatiq_actor() -> Any:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=URL))

    return dramatiq.actor(job, actor_name="job", queue_name="jobs")


def dramatiq_enqueue(count: int) -> float:
    actor = dramatiq_actor()
    began = time.perf_counter()
    for number in range(count):
        actor.send(number)
    return time.perf_counter() - began


def dramatiq_work() -> None:
    import dramatiq

    dramatiq_actor()
    worker = dramatiq.Worker(dramatiq.get_broker(), worker_threads=AT_ONCE)
    worker.start()
    while True:
        time.sleep(60)


def remaining(client: Any) -> int:
    """Return how many jobs are waiting or being worked on."""
    if NAME == "arq":
        return int(client.zcard("arq:queue"))
    if NAME == "celery":
        return int(client.llen("celery")) + int(client.hlen("unacked"))
    # Acknowledged messages leave the hash of bodies.
    return int(client.hlen("dramatiq:jobs.msgs"))


def watch(count: int) -> float:
    """Return jobs a second from the first to the last."""
    import redis

    client = redis.Redis.from_url(URL)
    deadline = time.monotonic() + WITHIN_S
    began: float | None = None
    left = done_before = 0
    while time.monotonic() < deadline:
        left = remaining(client)
        if began is None and left < count:
            began, done_before = time.perf_counter(), count - left
        if began is not None and left == 0:
            return (count - done_before) / (time.perf_counter() - began)
        time.sleep(0.005)
    raise SystemExit(f"{NAME}: {left} of {count} jobs were left after {WITHIN_S} s")


def main() -> None:
    what = sys.argv[1]
    if what == "watch":
        print(watch(int(sys.argv[2])))
    elif what == "work":
        {"arq": arq_work, "celery": celery_work, "dramatiq": dramatiq_work}[NAME]()
    elif NAME == "arq":
        print(asyncio.run(arq_enqueue(int(sys.argv[2]))))
    else:
        print({"celery": celery_enqueue, "dramatiq": dramatiq_enqueue}[NAME](int(sys.argv[2])))


if __name__ == "__main__":
    main()
