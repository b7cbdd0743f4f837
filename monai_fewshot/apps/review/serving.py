# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from monai.config import PathLike
from monai.utils import optional_import

from .review_table import read_reviews
from .reviewed_scans import class_names_of, list_reviewed_scans
from .server import ReviewPages, make_server_app

__all__ = ["listen", "review_masks"]

uvicorn, has_uvicorn = optional_import("uvicorn")
_, has_starlette = optional_import("starlette")

ADDRESS = "127.0.0.1"
"""Never another: whoever reaches it over a network would see patients."""
SECONDS_TO_FINISH = 2


def review_masks(
    masks: PathLike,
    scans: PathLike | None = None,
    port: int = 0,
    *,
    browser: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Show masks in the browser, to accept or reject each; what is decided is kept in ``review.csv`` at once.

    A server runs on this machine, for this machine alone, until Ctrl+C ends it.

    Args:
        masks: folder that :func:`monai_fewshot.segment` wrote.
        scans: folder of the scans, where the masks were made by other means. Defaults to None: the folder of the masks
            says where they lie.
        port: of the server. Defaults to 0, a free one.
        browser: whether the page is opened in the browser, or only its address is told.
        say: is told the address.

    Raises:
        FileNotFoundError: where there are no masks, or nothing tells where their scans are.
        ImportError: where the extra ``review`` is not installed.
        OSError: where the port is not free.
        ValueError: where a table in the folder is damaged; it is left as it is.
    """
    if not (has_uvicorn and has_starlette):
        raise ImportError("monai-fewshot review needs a web server: pip install 'monai_fewshot[review]'")
    folder = Path(masks).expanduser().absolute()
    found = list_reviewed_scans(folder, scans)
    pages = ReviewPages(folder, found, class_names_of(folder))
    unknown = sorted(read_reviews(pages.table).keys() - {scan.name for scan in found})
    token = secrets.token_urlsafe(32)
    app = make_server_app(pages, token)
    with listen(port) as listener:
        address = f"http://{ADDRESS}:{listener.getsockname()[1]}/?token={token}"
        if unknown:
            names = ", ".join(unknown[:10])
            say(f"WARNING: {pages.table} has {len(unknown)} scan(s) without a mask; they stay: {names}.")
        say(f"{len(found)} scan(s) to review at\n{address}\nDecisions are kept in {pages.table}. Ctrl+C ends this.")
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def listen(port: int) -> socket.socket:
    """Listen on this machine's own address, which no other machine reaches.

    Args:
        port: 0 for a free one.

    Returns:
        The socket.

    Raises:
        OSError: where the port is taken or cannot be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise OSError(f"Port {port} is taken: name another --port, or leave it out for a free one.") from error
        raise OSError(f"Port {port} cannot be used ({error}): name another --port, or leave it out.") from error
    return listener
