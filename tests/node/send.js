// Sends the message on standard input with nodemailer, as it stands.
//   node send.js HOST PORT FROM TO
const nodemailer = require("nodemailer");
const fs = require("fs");

const [host, port, from, to] = process.argv.slice(2);
const transport = nodemailer.createTransport({ host, port: Number(port), secure: false, ignoreTLS: true });

transport
  .sendMail({ envelope: { from, to: [to] }, raw: fs.readFileSync(0) })
  .then(() => transport.close())
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
