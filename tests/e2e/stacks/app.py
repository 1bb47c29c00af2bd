"""A web application that counts its visits in PostgreSQL, or in Redis where it is told of one."""

import os
import socket

import flask

app = flask.Flask(__name__)


def secret():
    with open(os.environ["DB_PASSWORD_FILE"], encoding="utf-8") as file:
        return file.read().strip()


def count_in_postgres():
    import psycopg2

    connection = psycopg2.connect(
        host=os.environ["DB_HOST"], dbname="app", user="postgres", password=secret()
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS visits (at timestamptz DEFAULT now())")
        cursor.execute("INSERT INTO visits DEFAULT VALUES")
        cursor.execute("SELECT count(*) FROM visits")
        (count,) = cursor.fetchone()
    connection.close()
    return count


def count_in_redis():
    import redis

    return redis.Redis(host=os.environ["REDIS_HOST"]).incr("visits")


@app.get("/")
def visit():
    count = count_in_redis() if "REDIS_HOST" in os.environ else count_in_postgres()
    return {"visits": count, "host": socket.gethostname()}


@app.get("/health")
def health():
    return "well\n"
