"""Run the checks of one client: `python run.py CLIENT URL`, in an environment that has it.

Every function of the client's file whose name begins with `check_` is called with the URL. Prints a
line for each, with tabs: client, what was checked, `ok` or what went wrong. Imports the standard
library alone, as the environments have nothing of the project.
"""

import importlib.util
import sys
import traceback
from pathlib import Path


def main() -> int:
    """Run them all."""
    client, url = sys.argv[1:]
    # Not by its name, which is the client's own.
    path = Path(__file__).with_name(f"check_{client}.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, check in vars(module).items():
        if name.startswith("check_"):
            print(client, name.removeprefix("check_").replace("_", " "), _ran(check, url), sep="\t")
    return 0


def _ran(check: object, url: str) -> str:
    try:
        check(url)  # type: ignore[operator]
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}".replace("\n", " ").replace("\t", " ")[:300]
    return "ok"


if __name__ == "__main__":
    sys.exit(main())
