"""The `mige` command. Heavy imports wait inside the commands: `mige --help` answers at once."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from services.cli import calibrate, doctor, encoders, jobs, keys, serve, submit
from services.cli.output import EXIT_CANCELLED, EXIT_FAILED, EXIT_REJECTED, fail, print_text


class ErrorBoundary(TyperGroup):
    """Turns the errors that people meet into one message and an exit status, without a traceback.

    2: the request was rejected or cannot be made; 1: something failed; 130: interrupted.
    """

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401  (typer keeps its context type private)
        """Run the command."""
        from jobs.errors import JobError
        from services.client.errors import ApiError, ClientError, CredentialsError

        try:
            return super().invoke(ctx)
        except ApiError as exc:
            raise fail(str(exc), EXIT_REJECTED if exc.status < 500 else EXIT_FAILED) from None
        except CredentialsError as exc:
            raise fail(str(exc), EXIT_REJECTED) from None
        except ClientError as exc:
            raise fail(str(exc)) from None
        except JobError as exc:
            raise fail(str(exc), EXIT_REJECTED) from None
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_CANCELLED) from None


app = typer.Typer(
    cls=ErrorBoundary,
    name="mige",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help=(
        "Train image encoders from unlabelled data with mutual information gradients.\n\n"
        "Start the service with [bold]mige serve[/bold]; then, in another terminal, "
        "[bold]mige submit job.json --wait[/bold]. [bold]mige doctor[/bold] tells what is missing."
    ),
)


def _version(asked: bool) -> None:
    if asked:
        print_text(f"mige {importlib.metadata.version('mige-service')}\n")
        raise typer.Exit


@app.callback()
def _options(
    _show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of the command itself."""


app.command("serve")(serve.serve)
app.command("submit")(submit.submit)
app.command("jobs")(jobs.list_jobs)
app.command("job")(jobs.show_job)
app.command("watch")(jobs.watch)
app.command("logs")(jobs.logs)
app.command("cancel")(jobs.cancel)
app.command("pause")(jobs.pause)
app.command("resume")(jobs.resume)
app.command("encoders")(encoders.list_encoders)
app.command("download")(encoders.download)
app.command("embed")(encoders.embed)
app.command("calibrate")(calibrate.calibrate)
app.command("doctor")(doctor.doctor)
app.add_typer(keys.app, name="keys")

if __name__ == "__main__":
    app()
