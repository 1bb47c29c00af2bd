"""Attach over websockets with a real client: the containers `plain` and `tty` echo lines as `got-LINE`."""

import socket
import sys

import websocket


def attach(name, query, version="v1.45"):
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(30)
    stream.connect(sys.argv[1])
    url = f"ws://localhost/{version}/containers/{name}/attach/ws?stream=1&{query}"
    return websocket.create_connection(url, socket=stream)


def until(client, words, opcode=websocket.ABNF.OPCODE_BINARY):
    got = b""
    while not got.endswith(words):
        kind, data = client.recv_data()
        assert kind == opcode, (kind, data)
        got += data
    return got


both = "stdin=1&stdout=1&stderr=1"
first = attach("plain", both)
second = attach("plain", "logs=1&stdout=1")
assert until(second, b"before\n") == b"before\n"
first.send("one\n")
first.send_binary(b"two\n")
for client in (first, second):
    assert until(client, b"got-two\n") == b"got-one\ngot-two\n"
first.ping("still there?")
first.send("three\n")
assert until(first, b"got-three\n").endswith(b"got-three\n")
second.close()

# Before 1.28 messages are text, and before 1.42 every stream is joined.
old = attach("plain", "", "v1.27")
old.send("four\n")
until(old, b"got-four\n", websocket.ABNF.OPCODE_TEXT)
old.close()

# Leaving does not end the container's input; the end of the output closes the socket.
first.send("five\n")
until(first, b"got-five\n")

tty = attach("tty", both + "&detachKeys=ctrl-x,x")
tty.send("six\n")
until(tty, b"got-six\r\n")
tty.send(b"\x18")
tty.send(b"x")
kind, _ = tty.recv_data(control_frame=True)
assert kind == websocket.ABNF.OPCODE_CLOSE, kind
print("all messages came")
