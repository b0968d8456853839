#!/usr/bin/env bash
# Starts an MLflow server on this machine: bash start_mlflow.sh [PORT, 5000]. Runs are kept in mlflow.db, files in
# mlartifacts, both in this folder, which `--mlflow` without an address uses too.
set -euo pipefail
port=${1:-5000}
case $port in
    '' | *[!0-9]*)
        echo "start_mlflow.sh: expected a port such as 5000, got '$port'" >&2
        exit 2
        ;;
esac
python=python
[ -x .venv/bin/python ] && python=.venv/bin/python
if ! "$python" -c 'import mlflow' 2>/dev/null; then
    echo 'start_mlflow.sh: expected the library MLflow, got none; pip install "lightsheet[mlflow]"' >&2
    exit 2
fi
if ! "$python" -c 'import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", int(sys.argv[1])))' "$port" 2>/dev/null; then
    echo "start_mlflow.sh: expected a free port, got $port, which is in use; give another one" >&2
    exit 2
fi
echo "MLflow will be at http://127.0.0.1:$port (Ctrl-C ends it)"
exec "$python" -m mlflow server --backend-store-uri sqlite:///mlflow.db --artifacts-destination mlartifacts \
    --host 127.0.0.1 --port "$port"
