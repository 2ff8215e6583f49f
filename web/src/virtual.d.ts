declare module "virtual:runbook" {
  const html: string;
  export default html;
}
