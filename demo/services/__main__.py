"""`python -m demo.services users --port 9101`: one service as a process, until SIGTERM or SIGINT."""

import argparse
import asyncio
import ipaddress
import signal

from demo.services.serving import SERVICES, serving


def main() -> None:
    """Serves what the command line says; exits with a sentence when the address cannot be had."""
    asked = arguments()
    try:
        asyncio.run(serve(asked.service, asked.host, asked.port, asked.latency))
    except OSError as fault:
        raise SystemExit(f"{asked.service}: cannot listen on {asked.host}:{asked.port}: {fault.strerror}") from None


def arguments() -> argparse.Namespace:
    """`service`, `host`, `port` and `latency`."""
    parser = argparse.ArgumentParser(prog="python -m demo.services", description="One of the shop's services.")
    parser.add_argument("service", choices=SERVICES)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one and prints it")
    parser.add_argument("--host", type=loopback, default="127.0.0.1")
    parser.add_argument("--latency", type=float, metavar="MS", help="median; 0 for none (default: the service's own)")
    return parser.parse_args()


def loopback(host: str) -> str:
    """Only this machine may ask: the services obey fault headers and check no one's identity."""
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{host!r} is not a loopback address such as 127.0.0.1")


async def serve(service: str, host: str, port: int, latency: float | None) -> None:
    """Prints the service's URL and serves until a signal says to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(service, host=host, port=port, latency=latency) as url:
        print(f"{service} {url}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    main()
