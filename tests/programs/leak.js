// leak ADDRESS PORT: connects, and does not close when the peer does.
const net = require('net');

function dial(host, port) {
  const socket = new net.Socket({ allowHalfOpen: true });
  socket.connect({ host, port }, () => console.log('connected'));
  return socket;
}

const kept = [];
console.log('here');
process.stdin.once('data', () => kept.push(dial(process.argv[2], Number(process.argv[3]))));
