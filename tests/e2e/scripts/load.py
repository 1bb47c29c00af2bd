"""Eight clients start, restart and remove 300 containers between them, while a ninth lists them all the while."""

import sys
import threading
import time

import docker

CLIENTS, CONTAINERS = 8, 300
errors = []
busy = threading.Event()


def client():
    return docker.from_env(timeout=120)


def work(number):
    try:
        engine = client()
        own = []
        for at in range(number, CONTAINERS, CLIENTS):
            own.append(
                engine.containers.run(
                    "busybox",
                    ["sh", "-c", "echo up; exec sleep 600"],
                    name=f"load-{at}",
                    labels={"client": str(number)},
                    network_mode="none" if at % 3 == 0 else "bridge",
                    restart_policy={"Name": "on-failure" if at % 2 else "no"},
                    detach=True,
                )
            )
        meet.wait(120)
        for container in own:
            container.restart(timeout=0)
        for container in own:
            container.reload()
            assert container.status == "running", (container.name, container.status)
            logs = container.logs()
            assert logs == b"up\nup\n", (container.name, logs)
        meet.wait(120)
        for container in own:
            container.remove(force=True)
    except BaseException as error:  # pylint: disable=broad-except
        errors.append(f"client {number}: {error!r}")
        meet.abort()


def watch():
    engine = client()
    most, count, longest = 0, 0, 0.0
    while not busy.is_set():
        begun = time.monotonic()
        try:
            most = max(most, len(engine.api.containers(all=True)))
        except Exception as error:  # pylint: disable=broad-except
            errors.append(f"list: {error!r}")
            return
        longest = max(longest, time.monotonic() - begun)
        count += 1
    print(f"listed {count} times, the longest took {longest * 1000:.0f} ms")
    if most != CONTAINERS:
        errors.append(f"at most {most} were seen at once")


meet = threading.Barrier(CLIENTS)
watcher = threading.Thread(target=watch)
watcher.start()
workers = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
busy.set()
watcher.join()
left = client().api.containers(all=True)
if left:
    errors.append(f"left: {[c['Names'] for c in left]}")
print("\n".join(errors) or "nothing is left")
sys.exit(bool(errors))
