// Sends the message on standard input with nodemailer, as it stands.
//   node send.js HOST PORT FROM TO [clear | starttls | tls [USER [MECHANISM]]]
// The user's password is taken from MAIL_PASSWORD. Any certificate is good.
const nodemailer = require("nodemailer");
const fs = require("fs");

const [host, port, from, to, door = "clear", user, mechanism] = process.argv.slice(2);
const login = user && { user, pass: process.env.MAIL_PASSWORD };
const transport = nodemailer.createTransport({
  host,
  port: Number(port),
  secure: door === "tls",
  requireTLS: door === "starttls",
  ignoreTLS: door === "clear",
  tls: { rejectUnauthorized: false },
  ...(login && { auth: login }),
  ...(mechanism && { authMethod: mechanism }),
});

transport
  .sendMail({ envelope: { from, to: [to] }, raw: fs.readFileSync(0) })
  .then(() => transport.close())
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
