"""The main calls of docker-py against the engine in DOCKER_HOST. Exits non-zero at the first surprise."""

import sys

import docker


def main(archive):
    client = docker.from_env()
    assert client.ping()
    assert client.version()["ApiVersion"] >= "1.44"
    assert client.info()["OSType"] == "linux"

    with open(archive, "rb") as tar:
        client.api.import_image_from_data(tar.read(), repository="pybox", tag="1")
    image = client.images.get("pybox:1")
    assert "pybox:1" in image.tags
    assert image.id in [i.id for i in client.images.list()]
    image.tag("pybox", "2")
    client.images.remove("pybox:2")

    assert client.containers.run("pybox:1", ["echo", "hello"], remove=True) == b"hello\n"
    try:
        client.containers.run("pybox:1", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
        raise SystemExit("a failing command must raise")
    except docker.errors.ContainerError as error:
        assert error.exit_status == 3 and b"bad" in error.stderr, error

    network = client.networks.create("pynet", driver="bridge")
    volume = client.volumes.create("pyvol")
    box = client.containers.run(
        "pybox:1", ["sleep", "600"], name="py", detach=True, network="pynet", environment={"A": "b"},
        volumes={"pyvol": {"bind": "/v", "mode": "rw"}}, labels={"k": "v"}, mem_limit="64m",
    )
    box.reload()
    assert box.status == "running" and box.labels["k"] == "v"
    assert box.attrs["HostConfig"]["Memory"] == 64 << 20
    assert box.attrs["NetworkSettings"]["Networks"]["pynet"]["IPAddress"]
    assert [c.id for c in client.containers.list(filters={"label": "k=v"})] == [box.id]

    # Output that follows the upgrade at once must not be lost.
    for _ in range(20):
        code, output = box.exec_run(["sh", "-c", "echo $A"])
        assert (code, output) == (0, b"b\n"), (code, output)
    code, (out, err) = box.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True)
    assert (code, out, err) == (4, b"o\n", b"e\n")

    talker = client.containers.run("pybox:1", ["sh", "-c", "for i in 1 2 3; do echo $i; done"], detach=True)
    assert talker.wait()["StatusCode"] == 0
    assert talker.logs() == b"1\n2\n3\n"
    assert list(talker.logs(stream=True)) and talker.logs(tail=1) == b"3\n"
    talker.remove()

    network.disconnect(box)
    network.connect(box, aliases=["again"])
    box.rename("py2")
    box.restart(timeout=0)
    box.kill()
    box.wait()
    box.start()
    box.stop(timeout=0)
    box.remove(v=True)
    try:
        client.containers.get("py2")
        raise SystemExit("a removed container must be gone")
    except docker.errors.NotFound:
        pass
    network.remove()
    volume.remove()
    client.images.remove("pybox:1")
    assert client.images.list() == []


if __name__ == "__main__":
    main(sys.argv[1])
    print("docker-py: all calls passed")
