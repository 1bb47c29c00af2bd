"""Services under testcontainers, as a project's own tests would have them: testcontainers_services.py REGISTRY."""

import sys
import urllib.request

import redis
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy
from testcontainers.community.nginx import NginxContainer
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer


def postgres(image):
    with PostgresContainer(image, username="postgres", password="it's secret", dbname="app") as server:
        query = "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n; SELECT sum(n) FROM t"
        code, output = server.exec(["psql", "-h", "/tmp", "-U", "postgres", "-d", "app", "-Atc", query])
        assert code != 0 or output, "a password is asked for"
        code, output = server.exec(
            ["sh", "-c", f"PGPASSWORD=\"it's secret\" psql -h 127.0.0.1 -U postgres -d app -Atc '{query}'"]
        )
        assert code == 0 and output.split() == [b"SELECT", b"1000", b"500500"], output
        stdout, stderr = server.get_logs()
        assert b"database system is ready to accept connections" in stdout + stderr
        return server.get_wrapped_container().id


def cache(image):
    command = "redis-server --bind 0.0.0.0 --protected-mode no"
    with RedisContainer(image).with_command(command) as server:
        client = server.get_client()
        for number in range(100):
            client.set(f"key-{number}", number)
        assert client.dbsize() == 100
        try:
            client.execute_command("NO-SUCH-COMMAND")
            raise AssertionError("it has no such command")
        except redis.ResponseError:
            pass
        return server.get_wrapped_container().id


def web(image):
    with NginxContainer(image, port=80) as server:
        url = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(80)}/"
        with urllib.request.urlopen(url, timeout=10) as page:
            assert b"nginx" in page.read()
        return server.get_wrapped_container().id


def network(image):
    with Network() as net:
        server = (
            DockerContainer(image)
            .with_command("redis-server --bind 0.0.0.0 --protected-mode no")
            .with_network(net)
            .with_network_aliases("cache")
            .with_env("WHO", "server")
            .waiting_for(LogMessageWaitStrategy("Ready to accept connections").with_startup_timeout(20))
        )
        with server, DockerContainer(image, entrypoint="sleep").with_command("60").with_network(net) as caller:
            code, output = caller.exec(["redis-cli", "-h", "cache", "ping"])
            assert (code, output.strip()) == (0, b"PONG"), output
            code, output = server.exec(["sh", "-c", "echo $WHO; exit 3"])
            assert (code, output) == (3, b"server\n"), (code, output)


def main(registry):
    stack = f"{registry}/stack"
    ids = [postgres(f"{stack}:postgres"), cache(f"{stack}:redis"), web(f"{stack}:nginx")]
    network(f"{stack}:redis")
    assert len(set(ids)) == 3
    print("all services ran")


main(sys.argv[1])
