"""Asks a server of serve_movielens.py again and again over several connections; prints how long answers took.

    python examples/http_load.py --url http://127.0.0.1:8000 --seconds 5 --connections 1,4 --rows 1,64

A connection sends its next request when the answer to the one before has come. Ids are drawn at random, a tenth of them are
none that training had. Run it in another process than the server, and read the numbers as those of one machine: client and
server share its cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import random
import threading
import time
import urllib.parse

GENRES = ["Action", "Comedy", "Crime", "Drama", "Horror", "Romance", "Sci-Fi", "Thriller", "no such genre"]


@dataclasses.dataclass
class Load:
    """What was measured: the seconds of each request, and of all of them together."""

    latencies: list[float]
    seconds: float

    @property
    def requests_per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Seconds within which so many percent of the answers came."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def request_body(rows: int, rng: random.Random) -> bytes:
    """A request of so many rows, as JSON."""
    drawn = [
        {
            "userId": rng.randrange(1, 700),
            "movieId": rng.randrange(1, 9000),
            "genres": rng.sample(GENRES, rng.randrange(4)),
        }
        for _ in range(rows)
    ]
    return json.dumps({"rows": drawn}).encode()


def measure(url: str, connections: int, rows: int, seconds: float, seed: int = 1) -> Load:
    """Sends requests of some rows over some connections for some seconds.

    Raises:
        RuntimeError: if an answer is not the predictions of these rows.
    """
    address = urllib.parse.urlsplit(url)
    latencies: list[list[float]] = [[] for _ in range(connections)]
    failures: list[str] = []
    begin = threading.Barrier(connections + 1)
    end = [0.0]

    def send(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        bodies = [request_body(rows, rng) for _ in range(16)]
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        headers = {"Content-Type": "application/json"}
        begin.wait()
        while time.perf_counter() < end[0] and not failures:
            body = bodies[len(latencies[number]) % len(bodies)]
            started = time.perf_counter()
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            latencies[number].append(time.perf_counter() - started)
            if answer.status != 200 or len(json.loads(content)["predictions"]) != rows:
                failures.append(f"status {answer.status}, {content[:500]!r}")
        connection.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    end[0] = started + seconds
    begin.wait()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"Each answer must have status 200 and {rows} predictions. Received: {failures[0]}")
    return Load([latency for each in latencies for latency in each], time.perf_counter() - started)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each line of the table")
    parser.add_argument("--connections", default="1,4", help="numbers, with commas")
    parser.add_argument("--rows", default="1,64", help="of a request; numbers, with commas")
    options = parser.parse_args(arguments)
    print("connections  rows   requests/s     rows/s    p50 ms    p99 ms")
    for rows in map(int, options.rows.split(",")):
        measure(options.url, 1, rows, min(0.5, options.seconds))  # the first requests of a kind take longer
        for connections in map(int, options.connections.split(",")):
            load = measure(options.url, connections, rows, options.seconds)
            rate = load.requests_per_second
            print(
                f"{connections:11d} {rows:5d} {rate:12.1f} {rate * rows:10.0f} "
                f"{load.percentile(50) * 1e3:9.1f} {load.percentile(99) * 1e3:9.1f}"
            )


if __name__ == "__main__":
    main()
