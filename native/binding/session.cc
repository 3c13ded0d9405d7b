// SPDX-License-Identifier: MIT
// Session: the ptrace half as JavaScript sees it. One a tracer process; everything in it is synchronous.
#include "binding/binding.h"
#include "binding/mappings.h"
#include "binding/programs.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sys/prctl.h>

#include "bystander.h"
#include "fd_passing.h"
#include "freezer.h"
#include "landlock.h"
#include "pipe_copy.h"
#include "proc_walk.h"
#include "processors.h"
#include "remap.h"
#include "syscall_program.h"
#include "task_work.h"

namespace fdmove::binding {

namespace {

class Session : public Napi::ObjectWrap<Session> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Session",
                       {
                           InstanceMethod<&Session::fail_at>("failAt"),
                           InstanceMethod<&Session::die_at>("dieAt"),
                           InstanceMethod<&Session::calls>("calls"),
                           InstanceMethod<&Session::hit>("hit"),
                           InstanceMethod<&Session::stand_aside>("standAside"),
                           InstanceMethod<&Session::freeze>("freeze"),
                           InstanceMethod<&Session::threads>("threads"),
                           InstanceMethod<&Session::compile>("compile"),
                           InstanceMethod<&Session::load_many>("loadMany"),
                           InstanceMethod<&Session::run>("run"),
                           InstanceMethod<&Session::run_many>("runMany"),
                           InstanceMethod<&Session::run_ahead>("runAhead"),
                           InstanceMethod<&Session::begin>("begin"),
                           InstanceMethod<&Session::catch_up>("catchUp"),
                           InstanceMethod<&Session::begin_look>("beginLook"),
                           InstanceMethod<&Session::first_difference>("firstDifference"),
                           InstanceMethod<&Session::shelter>("shelter"),
                           InstanceMethod<&Session::inject>("inject"),
                           InstanceMethod<&Session::notes>("notes"),
                           InstanceMethod<&Session::read_datum>("readDatum"),
                           InstanceMethod<&Session::approach_mappings>("approachMappings"),
                           InstanceMethod<&Session::are_treated_as>("areTreatedAs"),
                           InstanceMethod<&Session::remap>("remap"),
                           InstanceMethod<&Session::point_exes>("pointExes"),
                           InstanceMethod<&Session::rollback>("rollback"),
                           InstanceMethod<&Session::commit>("commit"),
                           InstanceMethod<&Session::finish>("finish"),
                           InstanceMethod<&Session::release>("release"),
                           InstanceMethod<&Session::take_fd>("takeFd"),
                           InstanceMethod<&Session::send_fds>("sendFds"),
                           InstanceMethod<&Session::copy_pipe>("copyPipe"),
                           InstanceMethod<&Session::hangs_up>("hangsUp"),
                           InstanceMethod<&Session::queued_bytes>("queuedBytes"),
                           InstanceMethod<&Session::read_queued>("readQueued"),
                           InstanceMethod<&Session::run_task_work>("runTaskWork"),
                           InstanceMethod<&Session::invite_bystander>("inviteBystander"),
                           InstanceMethod<&Session::look_at_bystander>("lookAtBystander"),
                       });
  }

  explicit Session(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Session>(info) {
    (void)prctl(PR_SET_TIMERSLACK, 1);  // the shortest nap would take 60 us, not 10
  }

 private:
  static Deadline deadline(const Napi::Value& value) {
    return value.IsNumber() ? Deadline::in_us(to_u64(value)) : Deadline{};
  }

  Napi::Value finished(Napi::Env env, const Status& status) {
    if (!status.ok()) return throw_failure(env, status.failure());
    return env.Undefined();
  }

  Napi::Value fail_at(const Napi::CallbackInfo& info) {
    faults_.fail_at(to_u64(info[0]));
    return info.Env().Undefined();
  }

  Napi::Value die_at(const Napi::CallbackInfo& info) {
    faults_.die_at(to_u64(info[0]));
    return info.Env().Undefined();
  }

  Napi::Value calls(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(faults_.calls()));
  }

  /** Counts a call of the switch-over that JavaScript makes; true when it is the one to fail. */
  Napi::Value hit(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), faults_.hit()); }

  static std::vector<pid_t> pids_of(const Napi::Value& value) {
    std::vector<pid_t> pids;
    Napi::Array list = value.As<Napi::Array>();
    for (uint32_t index = 0; index < list.Length(); index++) pids.push_back(static_cast<pid_t>(to_i64(list.Get(index))));
    return pids;
  }

  Napi::Value stand_aside(const Napi::CallbackInfo& info) {
    aside_.emplace(pids_of(info[0]));
    return info.Env().Undefined();
  }

  Napi::Value freeze(const Napi::CallbackInfo& info) {
    Status frozen = freezer_.freeze(pids_of(info[0]), deadline(info[1]));
    if (!frozen.ok()) {
      forget_runners();
      return throw_failure(info.Env(), frozen.failure());
    }
    auto stopped = freezer_.threads();
    if (aside_ && !stopped.empty()) aside_->keep_off(stopped.front()->tid());
    return threads(info);
  }

  Napi::Value threads(const Napi::CallbackInfo& info) {
    Napi::Array list = Napi::Array::New(info.Env());
    uint32_t index = 0;
    for (Tracee* tracee : freezer_.threads()) {
      Napi::Object thread = Napi::Object::New(info.Env());
      thread.Set("pid", tracee->pid());
      thread.Set("tid", tracee->tid());
      thread.Set("syscall", static_cast<double>(arch::interrupted_syscall(tracee->registers())));
      thread.Set("stoppedUs", static_cast<double>(tracee->stopped_at_ns()) / 1000);
      list.Set(index++, thread);
    }
    return list;
  }

  Napi::Value compile(const Napi::CallbackInfo& info) {
    auto read = to_program(info[0].As<Napi::Object>());
    if (!read.ok()) return throw_failure(info.Env(), read.failure());
    auto program = std::make_unique<Program>(std::move(*read));
    Status ready = ProgramRunner::make_ready(*program, programs_.size(), injecting_);
    if (!ready.ok()) return throw_failure(info.Env(), ready.failure());
    programs_.push_back(std::move(program));
    return Napi::Number::New(info.Env(), static_cast<double>(programs_.size() - 1));
  }

  ProgramRunner* runner(pid_t tid) {
    auto known = runner_of_.find(tid);
    if (known != runner_of_.end()) return known->second;
    Tracee* tracee = freezer_.find(tid);
    if (tracee == nullptr) return nullptr;
    runners_.push_back(std::make_unique<ProgramRunner>(*tracee, faults_, injecting_));
    return runner_of_[tid] = runners_.back().get();
  }

  void forget_runners() {
    runner_of_.clear();
    runners_.clear();
    remappers_.clear();
  }

  /** loadMany(tids, programs, deadlineUs): each thread takes on a compiled program. */
  Napi::Value load_many(const Napi::CallbackInfo& info) {
    auto tids = info[0].As<Napi::Int32Array>();
    auto numbers = info[1].As<Napi::Int32Array>();
    std::vector<ProgramRunner*> runners;
    std::vector<const Program*> programs;
    for (size_t at = 0; at < tids.ElementLength(); at++) {
      ProgramRunner* on = runner(tids[at]);
      if (on == nullptr) return throw_failure(info.Env(), Failure{ESRCH, "loadMany", Side::kTracer, tids[at]});
      size_t index = static_cast<size_t>(numbers[at]);
      if (index >= programs_.size()) return throw_failure(info.Env(), refusal("ERR_FDMOVE_INTERNAL", "no such program"));
      runners.push_back(on);
      programs.push_back(programs_[index].get());
    }
    std::map<pid_t, size_t> threads;
    for (Tracee* tracee : freezer_.threads()) threads[tracee->pid()]++;
    for (ProgramRunner* on : runners) on->expect_threads(threads[on->tracee().pid()]);
    return finished(info.Env(), ProgramRunner::load_all(runners, programs, deadline(info[2])));
  }

  /** run(tid, end, deadlineUs) -> { results, failedAt }. */
  Napi::Value run(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    pid_t tid = static_cast<pid_t>(to_i64(info[0]));
    ProgramRunner* on = runner(tid);
    if (on == nullptr) return throw_failure(env, Failure{ESRCH, "run", Side::kTracer, tid});
    auto outcome = on->run(to_u64(info[1]), deadline(info[2]));
    if (!outcome.ok()) return throw_failure(env, outcome.failure());
    return to_object(env, *outcome);
  }

  /**
   * runMany(tids, ends, deadlineUs, lookAfter) -> outcomes. Programs run at the same time, some at a time; the first failure is
   * thrown at the end.
   */
  Napi::Value run_many(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    auto tids = info[0].As<Napi::Int32Array>();
    auto ends = info[1].As<Napi::Int32Array>();
    Deadline end = deadline(info[2]);
    std::optional<Failure> first;
    Napi::Array outcomes = Napi::Array::New(env, tids.ElementLength());
    for (size_t from = 0; from < tids.ElementLength() && !first; from += kAtATime) {
      std::vector<ProgramRunner*> begun;
      for (size_t at = from; at < std::min(from + kAtATime, tids.ElementLength()) && !first; at++) {
        ProgramRunner* on = runner(tids[at]);
        Status status = on == nullptr ? Status{Failure{ESRCH, "runMany", Side::kTracer, tids[at]}}
                                      : on->begin(static_cast<size_t>(ends[at]), end, info[3].ToBoolean());
        if (status.ok()) begun.push_back(on);
        else first = status.failure();
      }
      auto completed = ProgramRunner::complete_all(begun, end);
      if (!completed.ok()) {
        if (!first) first = completed.failure();
        continue;
      }
      for (size_t at = 0; at < begun.size(); at++) outcomes.Set(static_cast<uint32_t>(from + at), to_object(env, (*completed)[at]));
    }
    if (first) return throw_failure(env, *first);
    return outcomes;
  }

  /**
   * runAhead(tids, ends, deadlineUs) -> for each program how many fds its table has, if it looks at those that it names and runs
   * up to its end now, while the caller does other things. Only batches do, and only as many as their patience allows; if there
   * are none, or more, nothing was begun.
   */
  Napi::Value run_ahead(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    auto tids = info[0].As<Napi::Int32Array>();
    auto ends = info[1].As<Napi::Int32Array>();
    Napi::Array counts = Napi::Array::New(env, tids.ElementLength());
    std::vector<ProgramRunner*> all, lookers;
    for (size_t at = 0; at < tids.ElementLength(); at++) {
      all.push_back(runner(tids[at]));
      if (all[at] == nullptr) return throw_failure(env, Failure{ESRCH, "runAhead", Side::kTracer, tids[at]});
      if (all[at]->can_look()) lookers.push_back(all[at]);
    }
    if (lookers.empty() || lookers.size() > kAtATime) return counts;
    for (ProgramRunner* on : lookers)
      if (Status begun = on->begin_look(true); !begun.ok()) return throw_failure(env, begun.failure());
    // They are counted while the job looks, and before it opens any.
    for (uint32_t at = 0; at < all.size(); at++) {
      if (!all[at]->can_look()) continue;
      auto open = count_fds(tids[at]);
      if (!open.ok()) return throw_failure(env, open.failure());
      counts.Set(at, static_cast<double>(*open));
    }
    for (size_t at = 0; at < all.size(); at++) {
      size_t end = static_cast<size_t>(ends[at]);
      Status begun = all[at]->can_look() ? all[at]->begin_after_look(end) : all[at]->begin(end, deadline(info[2]));
      if (!begun.ok()) return throw_failure(env, begun.failure());
    }
    return counts;
  }

  /** begin(tids, ends, deadlineUs, lookAfter) -> whether all of these have been begun: not where there are too many. */
  Napi::Value begin(const Napi::CallbackInfo& info) {
    auto tids = info[0].As<Napi::Int32Array>();
    auto ends = info[1].As<Napi::Int32Array>();
    if (tids.ElementLength() > kAtATime) return Napi::Boolean::New(info.Env(), false);
    for (size_t at = 0; at < tids.ElementLength(); at++) {
      ProgramRunner* on = runner(tids[at]);
      if (on == nullptr) return throw_failure(info.Env(), Failure{ESRCH, "begin", Side::kTracer, tids[at]});
      Status begun = on->begin(static_cast<size_t>(ends[at]), deadline(info[2]), info[3].ToBoolean());
      if (!begun.ok()) return throw_failure(info.Env(), begun.failure());
    }
    return Napi::Boolean::New(info.Env(), true);
  }

  /** catchUp(tids, deadlineUs) -> outcomes of what runAhead() or begin() began; what is no batch runs now. */
  Napi::Value catch_up(const Napi::CallbackInfo& info) {
    auto tids = info[0].As<Napi::Int32Array>();
    std::vector<ProgramRunner*> begun;
    for (size_t at = 0; at < tids.ElementLength(); at++) begun.push_back(runner(tids[at]));
    auto completed = ProgramRunner::complete_all(begun, deadline(info[1]));
    if (!completed.ok()) return throw_failure(info.Env(), completed.failure());
    Napi::Array outcomes = Napi::Array::New(info.Env(), begun.size());
    for (uint32_t at = 0; at < begun.size(); at++) outcomes.Set(at, to_object(info.Env(), (*completed)[at]));
    return outcomes;
  }

  /** beginLook(tid) -> whether the thread now looks at the fds that its program names, but not at signals: only a batch can. */
  Napi::Value begin_look(const Napi::CallbackInfo& info) {
    ProgramRunner* on = runner(static_cast<pid_t>(to_i64(info[0])));
    bool can = on != nullptr && on->can_look();
    if (can)
      if (Status begun = on->begin_look(false); !begun.ok()) return throw_failure(info.Env(), begun.failure());
    return Napi::Boolean::New(info.Env(), can);
  }

  /**
   * firstDifference(tid, expected, flags, deadlineUs) -> the first number of `expected` that the look of this thread, which is
   * waited for, does not bear out; -1 when it bears out all. Of each fd: device, inode, mode, links, flags of the description
   * among `flags`, close-on-exec, offset, whether anybody is signalled; -1 where anything will do.
   */
  Napi::Value first_difference(const Napi::CallbackInfo& info) {
    pid_t tid = static_cast<pid_t>(to_i64(info[0]));
    auto expected = info[1].As<Napi::BigInt64Array>();
    ProgramRunner* on = runner(tid);
    if (on == nullptr || !on->can_look()) return throw_failure(info.Env(), Failure{ESRCH, "look", Side::kTracer, tid});
    Status looked = on->end_look(deadline(info[3]));
    if (!looked.ok()) return throw_failure(info.Env(), looked.failure());
    auto difference = first_difference_of(on->looks(), expected.Data(), expected.ElementLength(), to_i64(info[2]));
    if (!difference.ok()) return throw_failure(info.Env(), difference.failure());
    return Napi::Number::New(info.Env(), static_cast<double>(*difference));
  }

  /** shelter(): until finish(), no thread goes on before the programs of its process have come to an end, even if we die: native/shelter.h. */
  Napi::Value shelter(const Napi::CallbackInfo& info) {
    std::map<pid_t, std::vector<Tracee*>> threads;
    for (Tracee* tracee : freezer_.threads()) threads[tracee->pid()].push_back(tracee);
    std::map<pid_t, ProgramRunner*> hosts;
    for (auto& runner : runners_) {
      if (!runner->can_shelter()) continue;
      auto [host, is_first] = hosts.try_emplace(runner->tracee().pid(), runner.get());
      bool together = runners_.size() > 1;
      Status sheltered = is_first ? runner->shelter(threads[host->first], together) : runner->shelter_with(*host->second, together);
      if (!sheltered.ok()) return throw_failure(info.Env(), sheltered.failure());
    }
    return info.Env().Undefined();
  }

  /** inject('step' | 'batch' | 'auto'): how programs run that are loaded from now on. */
  Napi::Value inject(const Napi::CallbackInfo& info) {
    std::string how = info[0].ToString().Utf8Value();
    injecting_.how = how == "step"    ? Injecting::How::kStepwise
                     : how == "batch" ? Injecting::How::kBatch
                                      : Injecting::How::kMeasured;
    return info.Env().Undefined();
  }

  /** Why programs did not run as a batch, and what one left behind. */
  Napi::Value notes(const Napi::CallbackInfo& info) {
    Napi::Array notes = Napi::Array::New(info.Env());
    uint32_t count = 0;
    for (const std::string& note : notes_) notes.Set(count++, note);
    return notes;
  }

  Napi::Value read_datum(const Napi::CallbackInfo& info) {
    pid_t tid = static_cast<pid_t>(to_i64(info[0]));
    ProgramRunner* on = runner(tid);
    if (on == nullptr) return throw_failure(info.Env(), Failure{ESRCH, "readDatum", Side::kTracer, tid});
    auto bytes = on->read_datum(to_u64(info[1]), to_u64(info[2]));
    if (!bytes.ok()) return throw_failure(info.Env(), bytes.failure());
    return Napi::Buffer<char>::Copy(info.Env(), bytes->data(), bytes->size());
  }

  Remapper* remapper(pid_t tid) {
    for (auto& remapper : remappers_)
      if (remapper->tracee().tid() == tid) return remapper.get();
    Tracee* tracee = freezer_.find(tid);
    if (tracee == nullptr) return nullptr;
    auto approached = approached_.find(tid);
    MappingStates states = approached == approached_.end() ? MappingStates(tid) : std::move(approached->second);
    if (approached != approached_.end()) approached_.erase(approached);
    remappers_.push_back(std::make_unique<Remapper>(*tracee, faults_, injecting_, std::move(states)));
    return remappers_.back().get();
  }

  /** approachMappings(tid, starts): native/mapping_state.h; while the job runs. What cannot be approached is read from the beginning. */
  Napi::Value approach_mappings(const Napi::CallbackInfo& info) {
    pid_t tid = static_cast<pid_t>(to_i64(info[0]));
    MappingStates states(tid);
    if (states.approach(to_addresses(info[1]), kReadsInAPause).ok()) approached_.insert_or_assign(tid, std::move(states));
    return info.Env().Undefined();
  }

  /** areTreatedAs(tids, starts of each, VmFlags of each) -> whether these mappings are there and treated like that. */
  Napi::Value are_treated_as(const Napi::CallbackInfo& info) {
    auto tids = info[0].As<Napi::Int32Array>();
    auto starts = info[1].As<Napi::Array>();
    auto flags = info[2].As<Napi::Array>();
    std::vector<Remapper::Remembered> all;
    for (uint32_t at = 0; at < tids.ElementLength(); at++) {
      Remapper* on = remapper(tids[at]);
      if (on == nullptr) return throw_failure(info.Env(), Failure{ESRCH, "areTreatedAs", Side::kTracer, tids[at]});
      all.push_back({on, to_addresses(starts.Get(at)), to_texts(flags.Get(at))});
    }
    auto same = Remapper::are_treated_as(all);
    if (!same.ok()) return throw_failure(info.Env(), same.failure());
    return Napi::Boolean::New(info.Env(), *same);
  }

  /** remap(tids, moves of each, fds of each, deadlineUs of each call, untilUs: CLOCK_MONOTONIC). */
  Napi::Value remap(const Napi::CallbackInfo& info) {
    auto tids = info[0].As<Napi::Int32Array>();
    Napi::Array moves = info[1].As<Napi::Array>(), fds = info[2].As<Napi::Array>();
    std::vector<Remapper::Request> requests;
    for (uint32_t at = 0; at < tids.ElementLength(); at++) {
      Remapper* on = remapper(tids[at]);
      if (on == nullptr) return throw_failure(info.Env(), Failure{ESRCH, "remap", Side::kTracer, tids[at]});
      on->limit_calls(to_u64(info[3]));
      requests.push_back({on, to_mapping_moves(moves.Get(at), fds.Get(at))});
    }
    Status moved = Remapper::move_all(requests, Deadline{to_u64(info[4]) * 1000});
    for (const Remapper::Request& request : requests)
      if (!request.on->note().empty()) notes_.insert(request.on->note());
    return finished(info.Env(), moved);
  }

  /** pointExes(tids, freshFds, oldFds). */
  Napi::Value point_exes(const Napi::CallbackInfo& info) {
    auto tids = info[0].As<Napi::Int32Array>(), fresh = info[1].As<Napi::Int32Array>(), old = info[2].As<Napi::Int32Array>();
    std::vector<Remapper::ExeRequest> requests;
    for (size_t at = 0; at < tids.ElementLength(); at++) {
      Remapper* on = remapper(tids[at]);
      if (on == nullptr) return throw_failure(info.Env(), Failure{ESRCH, "pointExes", Side::kTracer, tids[at]});
      requests.push_back({on, fresh[at], old[at]});
    }
    return finished(info.Env(), Remapper::point_exes(requests));
  }

  /** Undoes in all threads, last one first; the first failure is thrown after all were tried. */
  Napi::Value rollback(const Napi::CallbackInfo& info) {
    Status status = Done{};
    faults_.suspend(true);
    // A thread that still runs its program can make no call for the mappings.
    for (auto& runner : runners_) (void)runner->stand(deadline(info[0]));
    // First the mappings: they need fds that the programs close.
    for (auto at = remappers_.rbegin(); at != remappers_.rend(); ++at) {
      Status undone = (*at)->rollback();
      if (!undone.ok() && status.ok()) status = undone;
    }
    for (auto at = runners_.rbegin(); at != runners_.rend(); ++at) {
      Status undone = (*at)->rollback(deadline(info[0]));
      if (!undone.ok() && status.ok()) status = undone;
    }
    faults_.suspend(false);
    return finished(info.Env(), status);
  }

  Napi::Value commit(const Napi::CallbackInfo& info) {
    Status status = Done{};
    for (auto& runner : runners_) {
      Status committed = runner->commit();
      if (!committed.ok() && !runner->tracee().gone() && status.ok()) status = committed;
    }
    for (auto& remapper : remappers_) remapper->commit();
    return finished(info.Env(), status);
  }

  Napi::Value finish(const Napi::CallbackInfo& info) {
    std::vector<ProgramRunner*> all;
    for (auto& runner : runners_) all.push_back(runner.get());
    Status status = ProgramRunner::finish_all(all, deadline(info[0]));
    for (auto& runner : runners_)
      if (!runner->note().empty()) notes_.insert(runner->note());
    return finished(info.Env(), status);
  }

  Napi::Value release(const Napi::CallbackInfo& info) {
    forget_runners();
    Status released = freezer_.release();
    aside_.reset();
    return finished(info.Env(), released);
  }

  Napi::Value take_fd(const Napi::CallbackInfo& info) {
    if (faults_.hit()) return throw_failure(info.Env(), Failure{EIO, "pidfd_getfd", Side::kTracer, 0, nullptr, "failed on purpose"});
    auto fd = fdmove::take_fd(static_cast<pid_t>(to_i64(info[0])), static_cast<int>(to_i64(info[1])));
    if (!fd.ok()) return throw_failure(info.Env(), fd.failure());
    return Napi::Number::New(info.Env(), *fd);
  }

  /** copyPipe(pid, fd, to) -> bytes that the FIFO of our fd now holds too. */
  Napi::Value copy_pipe(const Napi::CallbackInfo& info) {
    if (faults_.hit()) return throw_failure(info.Env(), Failure{EIO, "tee", Side::kTracer, 0, nullptr, "failed on purpose"});
    auto bytes = fdmove::copy_pipe(static_cast<pid_t>(to_i64(info[0])), static_cast<int>(to_i64(info[1])),
                                   static_cast<int>(to_i64(info[2])));
    if (!bytes.ok()) return throw_failure(info.Env(), bytes.failure());
    return Napi::Number::New(info.Env(), *bytes);
  }

  /** hangsUp(pid, fd) -> whether poll(2) of the FIFO tells POLLHUP. */
  Napi::Value hangs_up(const Napi::CallbackInfo& info) {
    auto hangs = fdmove::hangs_up(static_cast<pid_t>(to_i64(info[0])), static_cast<int>(to_i64(info[1])));
    if (!hangs.ok()) return throw_failure(info.Env(), hangs.failure());
    return Napi::Boolean::New(info.Env(), *hangs);
  }

  /** queuedBytes(pid, fd) -> what a read of it would find. */
  Napi::Value queued_bytes(const Napi::CallbackInfo& info) {
    auto bytes = fdmove::queued_bytes(static_cast<pid_t>(to_i64(info[0])), static_cast<int>(to_i64(info[1])));
    if (!bytes.ok()) return throw_failure(info.Env(), bytes.failure());
    return Napi::Number::New(info.Env(), *bytes);
  }

  /** readQueued(pid, fd) -> Buffer: takes it out of the queue. */
  Napi::Value read_queued(const Napi::CallbackInfo& info) {
    auto bytes = fdmove::read_queued(static_cast<pid_t>(to_i64(info[0])), static_cast<int>(to_i64(info[1])));
    if (!bytes.ok()) return throw_failure(info.Env(), bytes.failure());
    return Napi::Buffer<char>::Copy(info.Env(), bytes->data(), bytes->size());
  }

  /** runTaskWork(pid, rings, deadlineUs): native/task_work.h. */
  Napi::Value run_task_work(const Napi::CallbackInfo& info) {
    pid_t pid = static_cast<pid_t>(to_i64(info[0]));
    auto rings = info[1].As<Napi::Int32Array>();
    std::vector<Tracee*> threads;
    for (Tracee* tracee : freezer_.threads())
      if (tracee->pid() == pid) threads.push_back(tracee);
    return finished(info.Env(), fdmove::run_task_work(threads, {rings.Data(), rings.ElementLength()}, deadline(info[2]), faults_));
  }

  /** inviteBystander(tid) -> the pid that this thread knows it by: native/bystander.h. It lives as long as the session. */
  Napi::Value invite_bystander(const Napi::CallbackInfo& info) {
    auto made = Bystander::like(static_cast<pid_t>(to_i64(info[0])));
    if (!made.ok()) return throw_failure(info.Env(), made.failure());
    bystanders_.push_back(made.take());
    return Napi::Number::New(info.Env(), bystanders_.back().pid_there());
  }

  /**
   * Threads inherit the rules of who makes them. Each that is asked costs 45 us of the pause; so of a crowd the first ones are, of which
   * the main thread is one.
   */
  static constexpr size_t kMostAsked = 32;

  /** lookAtBystander(pid, bystander, deadlineUs) -> pairs of a thread of the process and its errno: native/landlock.h. */
  Napi::Value look_at_bystander(const Napi::CallbackInfo& info) {
    pid_t pid = static_cast<pid_t>(to_i64(info[0]));
    std::vector<Tracee*> threads;
    for (Tracee* tracee : freezer_.threads())
      if (tracee->pid() == pid && threads.size() < kMostAsked) threads.push_back(tracee);
    auto errors = fdmove::look_at_bystander(threads, static_cast<pid_t>(to_i64(info[1])), deadline(info[2]), faults_);
    if (!errors.ok()) return throw_failure(info.Env(), errors.failure());
    auto pairs = Napi::Int32Array::New(info.Env(), 2 * threads.size());
    for (size_t at = 0; at < threads.size(); at++) {
      pairs[2 * at] = threads[at]->tid();
      pairs[2 * at + 1] = (*errors)[at];
    }
    return pairs;
  }

  Napi::Value send_fds(const Napi::CallbackInfo& info) {
    if (faults_.hit()) return throw_failure(info.Env(), Failure{EIO, "sendmsg", Side::kTracer, 0, nullptr, "failed on purpose"});
    std::vector<int> fds;
    Napi::Array list = info[2].As<Napi::Array>();
    for (uint32_t index = 0; index < list.Length(); index++) fds.push_back(static_cast<int>(to_i64(list.Get(index))));
    return finished(info.Env(), fdmove::send_fds(static_cast<pid_t>(to_i64(info[0])), static_cast<int>(to_i64(info[1])), fds));
  }

  /** So many run at a time: a batch waits for its tracer only some seconds before it takes the tracer for dead. */
  static constexpr size_t kAtATime = 16;

  /** How mappings are treated is read once before and once after they are moved. */
  static constexpr size_t kReadsInAPause = 2;

  FaultInjector faults_;
  Injecting injecting_;
  std::set<std::string> notes_;
  std::optional<Aside> aside_;
  Freezer freezer_;
  std::vector<std::unique_ptr<ProgramRunner>> runners_;
  std::map<pid_t, ProgramRunner*> runner_of_;  ///< by thread
  std::map<pid_t, MappingStates> approached_;
  std::vector<std::unique_ptr<Remapper>> remappers_;
  std::vector<std::unique_ptr<Program>> programs_;
  std::vector<Bystander> bystanders_;
};

}  // namespace

void register_session(Napi::Env env, Napi::Object exports) { exports.Set("Session", Session::define(env)); }

}  // namespace fdmove::binding
