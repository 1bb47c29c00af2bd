#!/usr/bin/env bash
# Builds everything and runs every check and test. Installs what it needs; the tests need root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p target
. tests/setup.sh
need_test_tools
export GANTRY_TEST_PYTHON="$PWD/target/venv/bin/python"
# The program itself: the wrapper beside it always ends with 0.
GANTRY_TEST_COMPOSE=$(echo "$PWD"/target/venv/lib/python3*/site-packages/compose/docker-compose)
export GANTRY_TEST_COMPOSE
# The lock file is the truth for everything that is tested.
cargo build --locked --workspace --all-targets
cargo xtask check
if [ "$(id -u)" = 0 ]; then
  cargo nextest run --locked --workspace --no-fail-fast "$@"
else
  sudo -E env "PATH=$PATH" cargo nextest run --locked --workspace --no-fail-fast "$@"
fi
