"""`python -m modelrepo_cli` is `modelrepo`."""

import sys

from modelrepo_cli.main import main

sys.exit(main())
