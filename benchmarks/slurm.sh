#!/usr/bin/env bash
# A real Slurm cluster of one machine, to try `gsvr bids --cluster slurm` on (Debian: apt install slurm-wlm munge; as root).
#   benchmarks/slurm.sh start FOLDER    start munged, slurmctld and slurmd, with everything they keep in FOLDER
#   benchmarks/slurm.sh stop FOLDER     end them
# Then: export SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail

folder=$(realpath -m "$2")

start() {
    mkdir -p "$folder"/{state,spool,munge}
    chmod 700 "$folder/munge"
    [ -s "$folder/munge/key" ] || head -c 1024 /dev/urandom > "$folder/munge/key"
    chmod 600 "$folder/munge/key"
    local socket=$folder/munge/socket host
    host=$(hostname -s)
    cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    munged --force --socket="$socket" --key-file="$folder/munge/key" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    slurmctld -f "$folder/slurm.conf"
    slurmd -f "$folder/slurm.conf"
    for _ in $(seq 60); do
        SLURM_CONF=$folder/slurm.conf sinfo --noheader --format=%T 2> /dev/null | grep -q -E 'idle|mixed' && return
        sleep 1
    done
    tail -n 5 "$folder"/*.log >&2
    exit 1
}

stop() {
    for file in slurmd.pid slurmctld.pid munge/pid; do
        [ ! -s "$folder/$file" ] || kill "$(cat "$folder/$file")" 2> /dev/null || true
    done
}

case $1 in
    start | stop) "$1" ;;
    *) sed -n '2,5p' "$0" && exit 2 ;;
esac
