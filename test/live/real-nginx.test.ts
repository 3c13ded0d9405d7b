// SPDX-License-Identifier: MIT
// nginx: a master that opened the logs as root, workers of another user that could not open them, and two slow transfers
// that are under way during the moves.
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, get, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { until } from '../helpers/deadline.js'
import { findProgram } from '../helpers/find-program.js'
import { shuttle } from '../helpers/real-job.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

test('nginx serves on while its logs, a slow upload and a slow download are moved', async ({
  storage,
  dirs,
  spawnProgram,
  fdmove,
  cleanup,
  skip,
}) => {
  const nginx = findProgram('nginx')
  need({ skip }, 'nginx', nginx !== undefined, 'package nginx-light')
  const between = [await storage('ext4', 128), await storage('ext4', 128)] as const
  // The workers' user must come to both, as on a real host.
  for (const { path } of between) chmodSync(dirname(path), 0o755)
  const old = between[0].path
  for (const part of ['logs', 'uploads', 'files']) mkdirSync(join(old, part))
  chmodSync(join(old, 'logs'), 0o755)
  const download = randomBytes(3 << 20)
  writeFileSync(join(old, 'files/slow.bin'), download)
  const upload = randomBytes(3 << 20)

  // What nginx passes the upload on to, once it has all of it.
  let received: { size: number; hash: string } | undefined
  const upstream = createServer(async (incoming, answer) => {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    received = { size: body.length, hash: sha256(body) }
    answer.end('thanks')
  }).listen(0, '127.0.0.1')
  await once(upstream, 'listening')
  cleanup.add('processes', () => upstream.close())
  const port = await freePort()
  const configuration = join(dirs.old, 'nginx.conf')
  writeFileSync(
    configuration,
    `daemon off; user nobody nogroup; worker_processes 2; pid ${dirs.old}/pid; error_log ${old}/logs/error.log notice;
     events { worker_connections 128; }
     http {
       access_log ${old}/logs/access.log;
       client_body_temp_path ${old}/uploads; client_max_body_size 64m; client_body_buffer_size 16k;
       proxy_temp_path ${dirs.old}/proxy; fastcgi_temp_path ${dirs.old}/f; uwsgi_temp_path ${dirs.old}/u; scgi_temp_path ${dirs.old}/s;
       server {
         listen 127.0.0.1:${port};
         location = /quick { return 200 "quick"; }
         location /files/ { root ${old}; limit_rate 400k; sendfile on; }
         location = /upload { proxy_pass http://127.0.0.1:${(upstream.address() as AddressInfo).port}; }
       }
     }`,
  )
  chmodSync(dirs.old, 0o755)
  const job = await spawnProgram([nginx!, '-c', configuration, '-e', join(old, 'logs/error.log')])
  let requests = 0
  const fetchQuick = () => fetch(`http://127.0.0.1:${port}/quick`).then((answer) => answer.text())
  await until('nginx answers', () =>
    fetchQuick().then(
      () => true,
      () => false,
    ),
  )
  requests++

  const downloaded = new Promise<Buffer>((resolve, reject) => {
    get(`http://127.0.0.1:${port}/files/slow.bin`, async (answer) => {
      const chunks: Buffer[] = []
      for await (const chunk of answer) chunks.push(chunk as Buffer)
      resolve(Buffer.concat(chunks))
    }).on('error', reject)
  })
  const uploaded = slowUpload(port, upload)
  requests += 2
  let quick = true
  const pings = (async () => {
    for (; quick; requests++) {
      expect(await fetchQuick()).toBe('quick')
      await delay(2)
    }
  })()

  const { on, left } = await shuttle({
    between,
    fdmove,
    select: ['--pid', job.pid, '--tree'],
    moves: 4,
    worked: async () => {
      const before = requests
      await until('requests are served', () => requests > before + 50)
    },
  })
  await left.umount()
  const arrived = await downloaded
  expect(arrived.length).toBe(download.length)
  expect(arrived.findIndex((byte, i) => byte !== download[i])).toBe(-1)
  expect(await uploaded).toBe('thanks')
  expect(received).toEqual({ size: upload.length, hash: sha256(upload) })
  quick = false
  await pings
  process.kill(job.pid, 'SIGQUIT')
  expect(await job.ended()).toEqual({ exitCode: 0 })
  const lines = readFileSync(join(on.path, 'logs/access.log'), 'utf8').trimEnd().split('\n')
  expect(lines).toHaveLength(requests)
  expect(lines.filter((line) => !/ (200|206) /.test(line))).toEqual([])
})

/** Sends the body in small pieces over some seconds. */
async function slowUpload(port: number, body: Buffer): Promise<string> {
  const outgoing = request({
    host: '127.0.0.1',
    port,
    path: '/upload',
    method: 'POST',
    headers: { 'content-length': body.length },
  })
  const answered = once(outgoing, 'response')
  const pieces = 60
  for (let i = 0; i < pieces; i++) {
    outgoing.write(body.subarray((body.length * i) / pieces, (body.length * (i + 1)) / pieces))
    await delay(80)
  }
  outgoing.end()
  const [answer] = await answered
  let text = ''
  for await (const chunk of answer) text += chunk
  return text
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
