#!/bin/sh
# What a host does for `python -m launch`, in the folder of code that this file lies in:
#
#   sh launch/host.sh install EXTRAS        an environment with the code and extras of setup.py
#   sh launch/host.sh run NUMBER PROGRAM... the program, until it ends or standard input does
#   sh launch/host.sh stop NUMBER           tells what still runs under that number to stop
#
# The launcher keeps the input open. When it closes it, or the connection is lost, the program is
# told to stop (SIGTERM), on which a stage saves and ends with 75. What it prints from then on goes
# nowhere: writing to a connection that is gone would end it before it has saved. One that an
# earlier connection has left behind is told to stop first, and waited for: two must not write to
# one place.
set -eu

cd "$(dirname "$0")/.."

install() {
  if [ ! -x .venv/bin/python ]; then
    # Images of TPU hosts may have a Python that is too old, or none of its venv; uv brings one.
    if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' && python3 -m venv .venv; then
      :
    else
      rm -rf .venv
      PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
      python3 -m uv venv --seed --python 3.11 .venv
    fi
  fi
  .venv/bin/python -m pip install --quiet -c constraints.txt ".[$1]"
}

is_ours() {
  kill -0 "$1" 2>/dev/null && tr '\0' ' ' <"/proc/$1/cmdline" | grep -q clue_jax
}

stop() {
  [ -s "stage-$1.pid" ] || return 0
  left=$(cat "stage-$1.pid")
  seconds=0
  while is_ours "$left"; do
    if [ "$seconds" -eq 0 ]; then
      echo "host.sh: stopping process $left" >&2
      kill -TERM "$left" || :
    elif [ "$seconds" -ge 120 ]; then
      kill -KILL "$left" || :
    fi
    sleep 1
    seconds=$((seconds + 1))
  done
}

run() {
  number=$1
  shift
  stop "$number"
  exec 3<&0
  output="stage-$number.output"
  rm -f "$output"
  mkfifo "$output"
  {
    cat || :
    cat >/dev/null
  } <"$output" 2>/dev/null &
  reader=$!
  "$@" </dev/null >"$output" 2>&1 &
  program=$!
  echo "$program" >"stage-$number.pid"
  trap 'kill -TERM "$program" 2>/dev/null || :' TERM INT HUP
  {
    cat <&3 >/dev/null || :
    kill -TERM "$program" 2>/dev/null || :
  } 3<&3 >/dev/null 2>&1 &
  watcher=$!
  code=0
  # A signal ends `wait` early; the program is still there then.
  wait "$program" || code=$?
  while kill -0 "$program" 2>/dev/null; do
    code=0
    wait "$program" || code=$?
  done
  wait "$reader" || :
  rm -f "stage-$number.pid" "$output"
  kill "$watcher" 2>/dev/null || :
  exit "$code"
}

verb=$1
shift
case $verb in
  install | run | stop) "$verb" "$@" ;;
  *)
    echo "host.sh: $verb: install, run or stop" >&2
    exit 2
    ;;
esac
