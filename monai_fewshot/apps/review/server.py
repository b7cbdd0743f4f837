# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from monai_fewshot.utils import WriteError
from monai_fewshot.visualize.scan_previews import class_colors

from .access import AccessByToken
from .review_table import Review, add_review, read_reviews
from .reviewed_scans import ReviewedScan
from .volumes import ReviewedVolumes

__all__ = ["ReviewPages", "make_server_app"]

Starlette, _ = optional_import("starlette.applications", name="Starlette")
Middleware, _ = optional_import("starlette.middleware", name="Middleware")
TrustedHostMiddleware, _ = optional_import("starlette.middleware.trustedhost", name="TrustedHostMiddleware")
FileResponse, _ = optional_import("starlette.responses", name="FileResponse")
JSONResponse, _ = optional_import("starlette.responses", name="JSONResponse")
Response, _ = optional_import("starlette.responses", name="Response")
Mount, _ = optional_import("starlette.routing", name="Mount")
Route, _ = optional_import("starlette.routing", name="Route")
StaticFiles, _ = optional_import("starlette.staticfiles", name="StaticFiles")
run_in_threadpool, _ = optional_import("starlette.concurrency", name="run_in_threadpool")

STATIC = Path(__file__).with_name("static")
HOSTS = ("127.0.0.1", "localhost")
LONGEST_REQUEST = 100_000


@dataclass(frozen=True)
class ReviewPages:
    """What the server shows and takes: a list of scans, their images and masks, and reviews.

    Args:
        folder: of the masks, where ``review.csv`` is kept.
        scans: in the order in which they are shown.
        class_names: by number.
        volumes: reads images and masks.
    """

    folder: Path
    scans: Sequence[ReviewedScan]
    class_names: Mapping[int, str] = field(default_factory=dict)
    volumes: ReviewedVolumes = field(default_factory=ReviewedVolumes)

    @property
    def table(self) -> Path:
        """Path of the reviews."""
        return self.folder / "review.csv"

    def overview(self, request: Any) -> Any:
        """All scans with their reviews, and the classes with their colors."""
        reviews = read_reviews(self.table)
        colors = class_colors(self.class_names)
        classes = [{"number": n, "name": name, "color": colors[n]} for n, name in self.class_names.items()]
        return JSONResponse(
            {
                "folder": self.folder.name,
                "classes": classes,
                "scans": [self._entry(scan, reviews.get(scan.name, Review(scan.name))) for scan in self.scans],
            }
        )

    def image(self, request: Any) -> Any:
        """The image of a scan, by its place in the list."""
        scan = self._asked(request)
        kind = "image/png" if scan.is_picture else "application/octet-stream"
        return Response(self.volumes.image(scan), media_type=kind)

    def mask(self, request: Any) -> Any:
        """The mask of a scan, by its place in the list."""
        return Response(self.volumes.mask(self._asked(request)), media_type="application/octet-stream")

    def preview(self, request: Any) -> Any:
        """The picture of a scan with its mask."""
        scan = self._asked(request)
        if scan.preview is None:
            raise FileNotFoundError(f"There is no picture of {scan.name} in {self.folder / 'previews'}.")
        return FileResponse(scan.preview)

    async def review(self, request: Any) -> Any:
        """Take a review: ``scan``, ``verdict`` and ``note`` in JSON."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST_REQUEST:
                raise ValueError(f"The note is too long: write fewer than {LONGEST_REQUEST} characters.")
        told = json.loads(body)
        words = [told.get(key) for key in ("scan", "verdict", "note")] if isinstance(told, dict) else [None]
        if not all(isinstance(word, str) for word in words):
            raise ValueError('Expected {"scan": ..., "verdict": ..., "note": ...}, each a text.')
        review = Review(*words)
        if review.scan not in {scan.name for scan in self.scans}:
            raise LookupError(f"There is no scan {review.scan!r} in {self.folder}.")
        done = await run_in_threadpool(add_review, self.table, review)
        return JSONResponse({"verdict": done.verdict, "note": done.note, "time": done.time})

    def _asked(self, request: Any) -> ReviewedScan:
        place = request.path_params["place"]
        if not 0 <= place < len(self.scans):
            raise LookupError(f"There is no scan number {place}: there are {len(self.scans)}, from 0.")
        return self.scans[place]

    def _entry(self, scan: ReviewedScan, review: Review) -> dict[str, Any]:
        return {
            "name": scan.name,
            "quality": scan.quality,
            "worst_class": scan.worst_class,
            "picture": scan.is_picture,
            "verdict": review.verdict,
            "note": review.note,
        }


def make_server_app(pages: ReviewPages, token: str) -> Any:
    """Make the application that a server runs.

    It answers only requests that know the token, to an address of this machine, and serves scans by their number alone.

    Args:
        pages: what it shows and takes.
        token: that lets in.

    Returns:
        An application of ASGI.
    """
    scan = "/scans/{place:int}"
    routes = [
        Route("/", lambda request: FileResponse(STATIC / "index.html")),
        Route("/scans", pages.overview),
        Route(f"{scan}/image", pages.image),
        Route(f"{scan}/mask", pages.mask),
        Route(f"{scan}/preview", pages.preview),
        Route("/reviews", pages.review, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS)), Middleware(AccessByToken, token=token)]
    handlers = {LookupError: _answer(404), OSError: _answer(404), WriteError: _answer(409), ValueError: _answer(409)}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _answer(status: int) -> Callable[[Any, Exception], Any]:
    def answer(request: Any, error: Exception) -> Any:
        return JSONResponse({"error": str(error)}, status)

    return answer
