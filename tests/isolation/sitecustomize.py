"""`site` imports this file in every Python whose PYTHONPATH holds its folder: all that the tests start."""

import no_frameworks  # noqa: F401
import no_network  # noqa: F401
