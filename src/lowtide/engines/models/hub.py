"""The Hugging Face hub as a source of GGUF files: which ones a repository has, and their download.
Called by source.py only. Needs the optional extra `lowtide[hub]`, imported on first use. Files land
in the hub's own cache (HF_HOME), shared with every other program that uses it, and what is there
already is used without a network. Every foreign exception is mapped to ModelSourceError here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from lowtide import limits


class ModelSourceError(Exception):
    """A model cannot be had. `code` is stable, `message` says what was tried and what to do.

    Codes: model_not_found, model_not_gguf, model_ambiguous, hub_not_installed, hub_unreachable,
    hub_refused.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Hub(Protocol):
    """What source.py needs of a hub."""

    def files(self, repo_id: str) -> list[str]:
        """Names of all files of `repo_id`; without a network, those already here."""

    def fetch(self, repo_id: str, name: str) -> Path:
        """The local path of one file, downloaded if need be."""


class HuggingFaceHub:
    """The real hub. `progress` is a tqdm class for the download bar; None is the hub's own.

    `endpoint` and `cache_dir` None mean the hub's defaults and environment variables.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        cache_dir: Path | None = None,
        progress: type[Any] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._cache_dir = cache_dir
        self._progress = {} if progress is None else {"tqdm_class": progress}

    def files(self, repo_id: str) -> list[str]:
        """See Hub."""
        library = _library()
        try:
            with _mapped(repo_id):
                # One short call; the library's own listing retries for half a minute offline.
                about = library.HfApi(endpoint=self._endpoint).model_info(
                    repo_id, timeout=limits.CONNECT_TIMEOUT_S
                )
                return [file.rfilename for file in about.siblings or ()]
        except ModelSourceError as exc:
            here = self._files_here(library, repo_id)
            if exc.code != "hub_unreachable" or not here:
                raise
            return here

    def fetch(self, repo_id: str, name: str) -> Path:
        """See Hub."""
        library = _library()
        with _mapped(repo_id):
            path = library.hf_hub_download(
                repo_id,
                name,
                endpoint=self._endpoint,
                cache_dir=self._cache_dir,
                **self._progress,
            )
        return Path(path)

    def _files_here(self, library: Any, repo_id: str) -> list[str]:
        try:
            folder = library.snapshot_download(
                repo_id, cache_dir=self._cache_dir, local_files_only=True
            )
        except (OSError, ValueError):  # nothing of this repository is here
            return []
        files = (path for path in Path(folder).rglob("*.gguf") if path.is_file())
        return sorted(path.relative_to(folder).as_posix() for path in files)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as exc:
        raise ModelSourceError(
            "hub_not_installed",
            "downloading a model needs one more package: pip install 'lowtide[hub]'"
            " (or give the path of a .gguf file, or --model random)",
        ) from exc
    return huggingface_hub


@contextmanager
def _mapped(repo_id: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as exc:
        raise ModelSourceError(
            "hub_refused",
            f"{repo_id} asks you to accept its terms: do so on its page, then log in"
            " with `hf auth login`",
        ) from exc
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as exc:
        raise ModelSourceError(
            "model_not_found",
            f"the hub has no model {repo_id}, or it is private: check the name, or log in"
            " with `hf auth login`",
        ) from exc
    # Its HTTP client changed twice; the base class it imports is the one it raises, or an OSError.
    except (errors.HfHubHTTPError, OSError, getattr(errors, "HTTPError", OSError)) as exc:
        raise ModelSourceError(
            "hub_unreachable",
            f"cannot reach the hub for {repo_id}, and it is not in the local cache ({exc})."
            " Without a network, give the path of a .gguf file or --model random;"
            " models downloaded before are used from the cache",
        ) from exc
