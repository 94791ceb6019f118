"""Commands about published encoders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.output import EXIT_REJECTED, fail, note, print_json, print_rows, print_text

if TYPE_CHECKING:
    import numpy as np

    from services.client import Resource

EncoderId = Annotated[str, typer.Argument(metavar="ID", help="The encoder's id, as enc_0198….")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_encoders(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the published encoders, newest first."""
    from services.client import Client

    with Client() as client:
        found = list(client.encoders(limit=limit))
    if as_json:
        print_json(found)
        return
    print_rows(
        ("ID", "NAME", "DIM", "LINEAR PROBE", "JOB", "CREATED"),
        (
            (
                e["id"],
                e["name"],
                e["metadata"].get("out_dim"),
                _probe(e),
                e["job_id"],
                str(e["created_at"])[:19].replace("T", " "),
            )
            for e in found
        ),
        "there are no encoders yet; a job that succeeds publishes one",
    )


def download(
    encoder_id: EncoderId,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to; the encoder's id if not given.")
    ] = None,
    file: Annotated[
        list[str] | None, typer.Option("--file", help="Only this file. May be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download an encoder. Goes on where an earlier try was cut off; verifies every byte.

    Example: mige download enc_0198... --out my-encoder
    """
    from services.client import Client

    directory = out or Path(encoder_id)
    with Client() as client:
        client.download(encoder_id, directory, files=file)
        manifest = client.manifest(encoder_id)
    fetched = [f for f in manifest["files"] if file is None or f["path"] in file]
    if as_json:
        print_json({"directory": str(directory), "files": fetched})
        return
    print_rows(
        ("FILE", "BYTES", "SHA256 (VERIFIED)"),
        ((directory / f["path"], f["size_bytes"], f["sha256"]) for f in fetched),
        "the encoder has no files",
    )


def embed(
    encoder_id: EncoderId,
    file: Annotated[
        Path, typer.Argument(help="Images as .npy: (n, channels, height, width).", dir_okay=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the embeddings there, as .npy.")
    ] = None,
) -> None:
    """Embed images with a published encoder: floats in [0, 1] or uint8 in 0 to 255.

    Without --out the embeddings are printed, one line of numbers an image.

    Example: mige embed enc_0198... images.npy --out embeddings.npy
    """
    import numpy as np

    from services.client import Client

    images = _read_images(file)
    with Client() as client:
        embeddings = client.embed(encoder_id, images)
    if out is None:
        print_text("".join(" ".join(f"{v:.6g}" for v in row) + "\n" for row in embeddings))
        return
    try:
        np.save(out, embeddings, allow_pickle=False)
    except OSError as exc:
        raise fail(f"{out}: {exc.strerror}") from None
    note(f"{len(embeddings)} embeddings of width {embeddings.shape[1]} in {out}")


def _read_images(file: Path) -> np.ndarray:
    import numpy as np

    try:
        images = np.load(file, allow_pickle=False)
    except OSError as exc:
        raise fail(f"{file}: {exc.strerror or exc}", EXIT_REJECTED) from None
    except ValueError as exc:
        raise fail(f"{file} is not a plain .npy file: {exc}", EXIT_REJECTED) from None
    if not isinstance(images, np.ndarray):
        raise fail(f"{file} is an archive; save one array with numpy.save", EXIT_REJECTED)
    return images


def _probe(encoder: Resource) -> str | None:
    trained = encoder["evaluation"].get("linear_probe@1", {}).get("trained")
    return None if trained is None else f"{trained:.1%}"
